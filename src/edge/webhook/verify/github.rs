//! GitHub: `X-Hub-Signature-256` is the HMAC-SHA256 of the body. Neither the ID nor a time is signed.

use aws_lc_rs::hmac::HMAC_SHA256;

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use super::header;
use crate::edge::encoding;

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>) -> Result<Verified, VerifyError> {
    let hex = check.header("x-hub-signature-256")?.strip_prefix("sha256=").ok_or(VerifyError::MalformedHeader)?;
    let mac = [encoding::hex(hex).ok_or(VerifyError::MalformedHeader)?];
    let delivery_id = header::optional_id(check.request.headers, "x-github-delivery")?;
    let signer = check.mac_signer(HMAC_SHA256, &[check.request.body], &mac)?;
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id,
        signed_at: None,
        identity: identity("github", &[check.request.body]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, key, refused_when_altered};

    /// The example of GitHub's documentation.
    fn example() -> Request {
        Request::post("Hello, World!")
            .header("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
            .header("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
    }

    fn verify(request: &Request) -> Result<Verified, VerifyError> {
        request.verify(&Scheme::Github, &[key(&Scheme::Github, "It's a Secret to Everybody\n")], 0)
    }

    #[test]
    fn the_documented_example_is_verified() {
        let verified = verify(&example()).unwrap();
        assert_eq!(verified.delivery_id.as_deref(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
        assert_eq!(verified.signed_at, None);
    }

    #[test]
    fn the_identity_is_of_what_is_signed_and_not_of_the_id() {
        let other_id = example().set("x-github-delivery", "another");
        assert_eq!(verify(&other_id).unwrap().identity, verify(&example()).unwrap().identity);
        let without_id = example().without("x-github-delivery");
        assert_eq!(verify(&without_id).unwrap().delivery_id, None);
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        refused_when_altered(&example(), &["x-hub-signature-256"], verify);
    }

    #[test]
    fn the_signature_is_written_in_one_way() {
        for (wrong, why) in [
            ("757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", VerifyError::MalformedHeader),
            ("sha1=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", VerifyError::MalformedHeader),
            ("sha256=757107EA0EB2509FC211221CCE984B8A37570B6D7586C22C46F4379C8B043E17", VerifyError::MalformedHeader),
            ("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e", VerifyError::WrongSignature),
            ("sha256=", VerifyError::WrongSignature),
        ] {
            assert_eq!(verify(&example().set("x-hub-signature-256", wrong)), Err(why), "{wrong}");
        }
    }
}

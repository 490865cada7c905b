//! Shopify: `X-Shopify-Hmac-Sha256` is the HMAC-SHA256 of the body, in base64. Neither the ID nor a time is signed.

use aws_lc_rs::hmac::HMAC_SHA256;

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use super::header;
use crate::edge::encoding;

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>) -> Result<Verified, VerifyError> {
    let mac = [encoding::base64(check.header("x-shopify-hmac-sha256")?).ok_or(VerifyError::MalformedHeader)?];
    let delivery_id = header::optional_id(check.request.headers, "x-shopify-webhook-id")?;
    let signer = check.mac_signer(HMAC_SHA256, &[check.request.body], &mac)?;
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id,
        signed_at: None,
        identity: identity("shopify", &[check.request.body]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, key, refused_when_altered};

    const MAC: &str = "a5hXpatuC6F/PWpXkXjA3J1dPpZ7DMVDK20XW28suWc=";

    fn example() -> Request {
        Request::post(r#"{"id":1}"#).header("x-shopify-webhook-id", "b54557e4").header("x-shopify-hmac-sha256", MAC)
    }

    fn verify(request: &Request) -> Result<Verified, VerifyError> {
        request.verify(&Scheme::Shopify, &[key(&Scheme::Shopify, "hush-0123456789abcdef")], 0)
    }

    #[test]
    fn the_mac_of_the_body_is_verified() {
        assert_eq!(verify(&example()).unwrap().delivery_id.as_deref(), Some("b54557e4"));
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        refused_when_altered(&example(), &["x-shopify-hmac-sha256"], verify);
    }

    #[test]
    fn the_mac_is_written_in_one_way() {
        let url_safe = MAC.replace('+', "-").replace('/', "_");
        for wrong in [MAC.trim_end_matches('='), &url_safe, &format!("{MAC}="), &format!("{MAC} {MAC}")] {
            let altered = verify(&example().set("x-shopify-hmac-sha256", wrong));
            assert!(wrong == MAC || altered == Err(VerifyError::MalformedHeader), "{wrong}");
        }
    }
}

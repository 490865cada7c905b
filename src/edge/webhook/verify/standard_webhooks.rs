//! Standard Webhooks: `webhook-signature` is a list of `v1` (HMAC-SHA256) and `v1a` (Ed25519) signatures of
//! `{id}.{timestamp}.{body}`.

use aws_lc_rs::hmac::HMAC_SHA256;
use http::HeaderName;

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use super::header::delivery_id;
use super::verifier::{MAX_PUBLIC_KEY_SIGNATURES, Verifier};
use crate::edge::encoding;

const ID: HeaderName = HeaderName::from_static("webhook-id");

/// Maximum number of signatures in one header.
const MAX_SIGNATURES: usize = 16;

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>) -> Result<Verified, VerifyError> {
    let id = delivery_id(check.request.headers, &ID)?.ok_or(VerifyError::MissingHeader)?;
    let time = check.header("webhook-timestamp")?;
    let signatures = Signatures::parse(check.header("webhook-signature")?)?;
    let signed_at = check.timestamp(time)?;
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", check.request.body];
    let whole = if signatures.public.is_empty() { Vec::new() } else { parts.concat() };
    let signer = check.signer(|key| match &key.verifier {
        Verifier::Mac(key) => key.verifies(HMAC_SHA256, &parts, &signatures.macs),
        Verifier::Ed25519(key) => signatures.public.iter().any(|signature| key.verify_sig(&whole, signature).is_ok()),
        _ => false,
    })?;
    Ok(Verified {
        key_id: signer.id.clone(),
        identity: identity("standard-webhooks", &[id.as_bytes()]),
        delivery_id: Some(id),
        signed_at: Some(signed_at),
    })
}

#[derive(Default)]
struct Signatures {
    macs: Vec<Vec<u8>>,
    public: Vec<Vec<u8>>,
}

impl Signatures {
    /// Reads the list. Unknown versions are skipped, as the standard requires.
    fn parse(text: &str) -> Result<Self, VerifyError> {
        let mut found = Self::default();
        for (count, entry) in text.split(' ').enumerate() {
            let (version, signature) = entry.split_once(',').ok_or(VerifyError::MalformedHeader)?;
            let decoded = || encoding::base64(signature).ok_or(VerifyError::MalformedHeader);
            match version {
                "v1" => found.macs.push(decoded()?),
                "v1a" => found.public.push(decoded()?),
                _ => {}
            }
            if count >= MAX_SIGNATURES || found.public.len() > MAX_PUBLIC_KEY_SIGNATURES {
                return Err(VerifyError::MalformedHeader);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::edge::webhook::verify::hash::sha256;
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, at, key, refused_when_altered};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: i64 = 1_614_265_330;

    /// The example of the reference libraries.
    fn example() -> Request {
        Request::post(r#"{"test": 2432232314}"#)
            .header("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
            .header("webhook-timestamp", "1614265330")
            .header("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
    }

    fn verify(request: &Request) -> Result<Verified, VerifyError> {
        request.verify(&Scheme::StandardWebhooks, &[key(&Scheme::StandardWebhooks, SECRET)], NOW)
    }

    #[test]
    fn the_example_of_the_standard_is_verified() {
        let verified = verify(&example()).unwrap();
        assert_eq!(verified.key_id, "key");
        assert_eq!(verified.delivery_id.as_deref(), Some("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        assert_eq!(verified.signed_at, Some(at(NOW)));
        assert_eq!(verified.identity, sha256(&[&b"standard-webhooks\0msg_p5jXN8AQM9LWM0D4loKWxJek"[..]]));
    }

    #[test]
    fn a_public_key_verifies_v1a() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = format!("whpk_{}", STANDARD.encode(pair.public_key()));
        let signature = STANDARD.encode(pair.sign(b"msg_1.1614265330.{}"));
        let request = Request::post("{}")
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", "1614265330")
            .header("webhook-signature", &format!("v1,AAAA v2,anything v1a,{signature}"));
        let keys = [key(&Scheme::StandardWebhooks, SECRET), key(&Scheme::StandardWebhooks, &public)];
        assert!(request.verify(&Scheme::StandardWebhooks, &keys, NOW).is_ok());
        assert_eq!(verify(&request), Err(VerifyError::WrongSignature));
        let as_mac = request.clone().set("webhook-signature", &format!("v1,{signature}"));
        assert_eq!(as_mac.verify(&Scheme::StandardWebhooks, &keys, NOW), Err(VerifyError::WrongSignature));
        let five = format!("v1a,{signature} ").repeat(5);
        let many = request.set("webhook-signature", &five);
        assert_eq!(many.verify(&Scheme::StandardWebhooks, &keys, NOW), Err(VerifyError::MalformedHeader));
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        refused_when_altered(&example(), &["webhook-id", "webhook-timestamp", "webhook-signature"], verify);
    }

    #[test]
    fn the_list_is_bounded_and_strict() {
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let with = |signatures: &str| verify(&example().set("webhook-signature", signatures)).map(|_| ());
        assert_eq!(with(&format!("{}{good}", "v1,AAAA ".repeat(15))), Ok(()));
        assert_eq!(with(&format!("{}{good}", "v1,AAAA ".repeat(16))), Err(VerifyError::MalformedHeader));
        for wrong in [
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE",
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF=",
            "v1,g0hM9SsE-OTPJTGt_tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "v1,AAAA  v1,AAAA",
        ] {
            assert_eq!(with(wrong), Err(VerifyError::MalformedHeader), "{wrong}");
        }
        assert_eq!(with("v1,"), Err(VerifyError::WrongSignature));
        assert_eq!(with("v2,x"), Err(VerifyError::WrongSignature));
    }

    #[test]
    fn an_id_with_a_dot_is_refused() {
        assert_eq!(verify(&example().set("webhook-id", "msg.1")), Err(VerifyError::MalformedHeader));
    }

    #[test]
    fn a_timestamp_outside_of_the_window_is_refused() {
        let scheme = Scheme::StandardWebhooks;
        let keys = [key(&scheme, SECRET)];
        assert_eq!(example().verify(&scheme, &keys, NOW + 301), Err(VerifyError::TooOld));
        assert_eq!(example().verify(&scheme, &keys, NOW - 61), Err(VerifyError::TooNew));
    }
}

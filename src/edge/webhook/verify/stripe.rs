//! Stripe: `Stripe-Signature` is `t=<time>,v1=<hex>`, with one `v1` for each active key; signed is
//! `{time}.{body}`. Other versions, such as `v0` of the test mode, are skipped.

use aws_lc_rs::hmac::HMAC_SHA256;

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use crate::edge::encoding;

/// Maximum number of entries in one header.
const MAX_ENTRIES: usize = 16;

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>) -> Result<Verified, VerifyError> {
    let (time, macs) = parse(check.header("stripe-signature")?)?;
    let signed_at = check.timestamp(time)?;
    let parts: [&[u8]; 3] = [time.as_bytes(), b".", check.request.body];
    let signer = check.mac_signer(HMAC_SHA256, &parts, &macs)?;
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id: None,
        signed_at: Some(signed_at),
        identity: identity("stripe", &parts),
    })
}

/// The time, which must be there exactly once, and the MACs.
fn parse(text: &str) -> Result<(&str, Vec<Vec<u8>>), VerifyError> {
    let mut time = None;
    let mut macs = Vec::new();
    for (count, entry) in text.split(',').enumerate() {
        let (name, value) = entry.split_once('=').ok_or(VerifyError::MalformedHeader)?;
        match name {
            "t" if time.replace(value).is_some() => return Err(VerifyError::MalformedHeader),
            "v1" => macs.push(encoding::hex(value).ok_or(VerifyError::MalformedHeader)?),
            _ => {}
        }
        if count >= MAX_ENTRIES {
            return Err(VerifyError::MalformedHeader);
        }
    }
    Ok((time.ok_or(VerifyError::MalformedHeader)?, macs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, at, key, refused_when_altered};

    const MAC: &str = "799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f";

    fn example() -> Request {
        Request::post(r#"{"id":"evt_1"}"#).header("stripe-signature", &format!("t=1492774577,v1={MAC},v0=00"))
    }

    fn verify(request: &Request) -> Result<Verified, VerifyError> {
        request.verify(&Scheme::Stripe, &[key(&Scheme::Stripe, "whsec_test_secret")], 1_492_774_577)
    }

    #[test]
    fn a_signature_over_time_and_body_is_verified() {
        let verified = verify(&example()).unwrap();
        assert_eq!(verified.signed_at, Some(at(1_492_774_577)));
        assert_eq!(verified.delivery_id, None);
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let several = example().set("stripe-signature", &format!("t=1492774577,v1={},v1={MAC}", "00".repeat(32)));
        assert_eq!(verify(&several), verify(&example()));
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        let plain = example().set("stripe-signature", &format!("t=1492774577,v1={MAC}"));
        refused_when_altered(&plain, &["stripe-signature"], verify);
    }

    #[test]
    fn the_header_is_strict_and_bounded() {
        let with = |signature: String| verify(&example().set("stripe-signature", &signature)).map(|_| ());
        for wrong in [
            format!("v1={MAC}"),
            format!("t=1492774577,t=1492774577,v1={MAC}"),
            format!("t=1492774577, v1={}", MAC.to_uppercase()),
            format!("t=01492774577,v1={MAC}"),
            format!("t=1492774577,v1={MAC},"),
            format!("t=1492774577,{}v1={MAC}", "v0=,".repeat(15)),
        ] {
            assert!(with(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(with(format!("t=1492774577,{}v1={MAC}", "v0=,".repeat(14))), Ok(()));
        assert_eq!(with(format!("t=1492774577,v0={MAC}")), Err(VerifyError::WrongSignature));
        assert_eq!(with("t=1492774577".into()), Err(VerifyError::WrongSignature));
    }

    #[test]
    fn a_timestamp_outside_of_the_window_is_refused() {
        let keys = [key(&Scheme::Stripe, "whsec_test_secret")];
        assert_eq!(example().verify(&Scheme::Stripe, &keys, 1_492_774_577 + 301), Err(VerifyError::TooOld));
        assert_eq!(example().verify(&Scheme::Stripe, &keys, 1_492_774_577 - 61), Err(VerifyError::TooNew));
    }
}

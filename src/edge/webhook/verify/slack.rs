//! Slack: `X-Slack-Signature` is `v0=` and the HMAC-SHA256 of `v0:{time}:{body}`.

use aws_lc_rs::hmac::HMAC_SHA256;

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::identity;
use crate::edge::encoding;

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>) -> Result<Verified, VerifyError> {
    let time = check.header("x-slack-request-timestamp")?;
    let hex = check.header("x-slack-signature")?.strip_prefix("v0=").ok_or(VerifyError::MalformedHeader)?;
    let mac = [encoding::hex(hex).ok_or(VerifyError::MalformedHeader)?];
    let signed_at = check.timestamp(time)?;
    let parts: [&[u8]; 4] = [b"v0:", time.as_bytes(), b":", check.request.body];
    let signer = check.mac_signer(HMAC_SHA256, &parts, &mac)?;
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id: None,
        signed_at: Some(signed_at),
        identity: identity("slack", &parts),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, at, key, refused_when_altered};

    const NOW: i64 = 1_531_420_618;

    /// The example of Slack's documentation.
    fn example() -> Request {
        Request::post(concat!(
            "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V",
            "&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=",
            "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN",
            "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        ))
        .header("x-slack-request-timestamp", "1531420618")
        .header("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503")
    }

    fn verify(request: &Request) -> Result<Verified, VerifyError> {
        request.verify(&Scheme::Slack, &[key(&Scheme::Slack, "8f742231b10e8888abcd99yyyzzz85a5")], NOW)
    }

    #[test]
    fn the_documented_example_is_verified() {
        assert_eq!(verify(&example()).unwrap().signed_at, Some(at(NOW)));
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        refused_when_altered(&example(), &["x-slack-request-timestamp", "x-slack-signature"], verify);
    }

    #[test]
    fn a_timestamp_outside_of_the_window_is_refused() {
        let keys = [key(&Scheme::Slack, "8f742231b10e8888abcd99yyyzzz85a5")];
        assert_eq!(example().verify(&Scheme::Slack, &keys, NOW + 301), Err(VerifyError::TooOld));
        assert_eq!(example().verify(&Scheme::Slack, &keys, NOW - 61), Err(VerifyError::TooNew));
    }

    #[test]
    fn the_signature_is_written_in_one_way() {
        for wrong in ["v1=00", "v0=", "a2114d57", "v0=A2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"]
        {
            assert!(verify(&example().set("x-slack-signature", wrong)).is_err(), "{wrong}");
        }
    }
}

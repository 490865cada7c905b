//! Twilio: `X-Twilio-Signature` is the HMAC-SHA1 of the URL and, for a form, of every name with its values, sorted. For any
//! other body, the URL carries its SHA-256 in `bodySHA256`.
//!
//! There is no delimiter between names and values, so one signature fits several forms. The identity is of what is signed, so all
//! of them are the same delivery.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;

use super::check::{SignatureCheck, Verified};
use super::error::VerifyError;
use super::hash::{identity, sha256};
use super::target::Target;
use super::verifier::Verifier;
use super::{form, header};
use crate::edge::encoding;

/// Maximum number of fields in a form.
const MAX_FIELDS: usize = 1000;
const FORM: &str = "application/x-www-form-urlencoded";

/// Verifies a request.
pub(super) fn verify(check: &SignatureCheck<'_>) -> Result<Verified, VerifyError> {
    let mac = [encoding::base64(check.header("x-twilio-signature")?).ok_or(VerifyError::MalformedHeader)?];
    if check.request.external_url.is_none() {
        return Err(VerifyError::NotCovered);
    }
    let target = Target::of(check.request)?;
    let digest = body_digest(&target)?;
    let fields = if digest.is_some() { Vec::new() } else { form_fields(check)? };
    let [as_written, other_port] = urls(&target);
    let signer = check.signer(|key| match &key.verifier {
        Verifier::Mac(key) => [&as_written, &other_port].iter().fold(false, |found, url| {
            found | key.verifies(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[url.as_bytes(), &fields], &mac)
        }),
        _ => false,
    })?;
    if let Some(digest) = digest {
        verify_slices_are_equal(&digest, &sha256(&[check.request.body])).map_err(|_| VerifyError::WrongDigest)?;
    }
    Ok(Verified {
        key_id: signer.id.clone(),
        delivery_id: header::optional_id(check.request.headers, "i-twilio-idempotency-token")?,
        signed_at: None,
        identity: identity("twilio", &[as_written.as_bytes(), &fields]),
    })
}

/// The digest in the URL.
fn body_digest(target: &Target<'_>) -> Result<Option<Vec<u8>>, VerifyError> {
    let mut found = target.query.unwrap_or_default().split('&').filter_map(|field| field.strip_prefix("bodySHA256="));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(digest), None) => encoding::hex(digest).map(Some).ok_or(VerifyError::WrongDigest),
        _ => Err(VerifyError::WrongDigest),
    }
}

/// Names and values as they are signed: sorted, and each pair once.
fn form_fields(check: &SignatureCheck<'_>) -> Result<Vec<u8>, VerifyError> {
    if check.request.body.is_empty() {
        return Ok(Vec::new());
    }
    let content_type = check.header("content-type")?;
    let media_type = content_type.split(';').next().unwrap_or_default().trim_end();
    if !media_type.eq_ignore_ascii_case(FORM) {
        return Err(VerifyError::NotCovered);
    }
    let mut sorted: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (name, value) in form::parse(check.request.body, MAX_FIELDS).ok_or(VerifyError::NotCovered)? {
        sorted.entry(name).or_default().insert(value);
    }
    let pairs = sorted.iter().flat_map(|(name, values)| values.iter().flat_map(move |value| [name, value]));
    Ok(pairs.flatten().copied().collect())
}

/// The URL and, since Twilio is not consistent in this, the same URL without its port or with the default one.
fn urls(target: &Target<'_>) -> [String; 2] {
    let Target { scheme, authority, path, .. } = target;
    let query = target.query_part();
    let other = match target.host_and_port() {
        (host, Some(_)) => host.to_owned(),
        (host, None) => format!("{host}:{}", target.default_port()),
    };
    [format!("{scheme}://{authority}{path}{query}"), format!("{scheme}://{other}{path}{query}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::webhook::verify::keys::Key;
    use crate::edge::webhook::verify::scheme::Scheme;
    use crate::edge::webhook::verify::testing::{Request, holding, refused_when_altered};
    use crate::edge::webhook::verify::verifier::MacKey;

    const FIELDS: &str =
        "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309";

    /// Twilio's examples have the token `12345`, which is too short for any other use.
    fn token() -> Key {
        holding(Verifier::Mac(MacKey::for_tests(b"12345")))
    }

    /// The examples of Twilio's libraries.
    fn request(url: &str, body: &str, signature: &str) -> Request {
        let mut request = Request::post(body).header("content-type", FORM).header("x-twilio-signature", signature);
        request.uri = format!("/edge?{}", url.split_once('?').unwrap().1).parse().unwrap();
        request.external_url = Some(url.split_once('?').unwrap().0.into());
        request
    }

    fn verify(request: &Request) -> Result<Verified, VerifyError> {
        request.verify(&Scheme::Twilio, &[token()], 0)
    }

    #[test]
    fn forms_are_verified_with_and_without_the_port() {
        for (url, signature) in [
            ("https://mycompany.com/myapp.php?foo=1&bar=2", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("https://mycompany.com:1234/myapp.php?foo=1&bar=2", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("http://mycompany.com:1234/myapp.php?foo=1&bar=2", "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
            ("https://mycompany.com/myapp.php?foo=1&bar=2", "kvajT1Ptam85bY51eRf/AJRuM3w="),
            ("http://mycompany.com/myapp.php?foo=1&bar=2", "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ] {
            assert!(verify(&request(url, FIELDS, signature)).is_ok(), "{url} {signature}");
        }
    }

    #[test]
    fn a_field_that_comes_twice_is_signed_once() {
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let signed = |body| verify(&request(url, body, "IK+Dwps556ElfBT0I3Rgjkr1wJU="));
        let first = signed("Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234").unwrap();
        assert_eq!(signed("Digits=1234&Digits=5678&SidAccount=AC123&Sid=CA123"), Ok(first));
    }

    #[test]
    fn any_other_body_is_bound_by_its_digest_in_the_url() {
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
        let body = r#"{"property": "value", "boolean": true}"#;
        let json = request(url, body, "a9nBmqA0ju/hNViExpshrM61xv4=").set("content-type", "application/json");
        assert!(verify(&json).is_ok());
        refused_when_altered(&json, &["x-twilio-signature"], verify);
        assert_eq!(verify(&Request { body: b"{}".into(), ..json.clone() }), Err(VerifyError::WrongDigest));
        let twice = format!("{url}&bodySHA256=00");
        assert_eq!(verify(&request(&twice, body, "a9nBmqA0ju/hNViExpshrM61xv4=")), Err(VerifyError::WrongDigest));
    }

    #[test]
    fn whatever_is_altered_is_refused() {
        let example = request("https://mycompany.com/myapp.php?foo=1&bar=2", FIELDS, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        let as_json = example.clone().set("content-type", "application/json");
        assert_eq!(verify(&as_json), Err(VerifyError::NotCovered));
        assert_eq!(verify(&Request { external_url: None, ..example.clone() }), Err(VerifyError::NotCovered));
        let other_query = Request { uri: "/edge?foo=1&bar=3".parse().unwrap(), ..example.clone() };
        assert_eq!(verify(&other_query), Err(VerifyError::WrongSignature));
        let broken = Request { body: b"a=%".into(), ..example.clone() };
        assert_eq!(verify(&broken), Err(VerifyError::NotCovered));
        let many = Request { body: "a&".repeat(MAX_FIELDS).into_bytes(), ..example };
        assert_eq!(verify(&many), Err(VerifyError::NotCovered));
    }
}

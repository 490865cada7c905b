//! What the tests of all schemes share.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::check::Verified;
use super::error::VerifyError;
use super::request::SignedRequest;
use super::scheme::Scheme;
use super::timestamp::Window;
use super::verifier::Verifier;
use crate::edge::webhook::verify::keys::Key;

/// A delivery that can be altered.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub authority: String,
    pub external_url: Option<String>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Request {
    pub fn post(body: impl AsRef<[u8]>) -> Self {
        Self {
            method: Method::POST,
            uri: Uri::from_static("/shop/orders"),
            authority: "hooks.example.com".into(),
            external_url: None,
            headers: HeaderMap::new(),
            body: body.as_ref().to_vec(),
        }
    }

    /// With one header more.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    /// With another value of a header.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).header(name, value)
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// Verifies with a window of 5 minutes back and 1 minute ahead.
    pub fn verify(&self, scheme: &Scheme, keys: &[Key], now: i64) -> Result<Verified, VerifyError> {
        let window = Window { past: SignedDuration::from_mins(5), future: SignedDuration::from_mins(1) };
        scheme.verify(keys, &self.signed_request(), &window, at(now))
    }

    pub fn signed_request(&self) -> SignedRequest<'_> {
        SignedRequest {
            method: &self.method,
            uri: &self.uri,
            authority: &self.authority,
            external_url: self.external_url.as_deref(),
            headers: &self.headers,
            body: &self.body,
        }
    }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Every scheme with a key for it.
pub(super) fn schemes() -> Vec<(Scheme, Key)> {
    let jwk = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let secret = "0123456789abcdef";
    [
        (json!({"standardWebhooks": {}}), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        (json!({"github": {}}), secret),
        (json!({"gitlab": {}}), secret),
        (json!({"stripe": {}}), secret),
        (json!({"slack": {}}), secret),
        (json!({"shopify": {}}), secret),
        (json!({"twilio": {}}), secret),
        (json!({"httpMessageSignatures": {"algorithm": "HmacSha256"}}), secret),
        (
            json!({"hmac": {"hash": "Sha256", "encoding": "Hex", "header": "signature", "parts": [{"body": {}}]}}),
            secret,
        ),
        (json!({"jwt": {"issuer": "i", "audience": "a"}}), jwk),
    ]
    .map(|(verification, text)| {
        let scheme = Scheme::new(&serde_json::from_value(verification).unwrap()).unwrap();
        let key = key(&scheme, text);
        (scheme, key)
    })
    .into()
}

/// A key that is always live.
pub(super) fn key(scheme: &Scheme, text: impl AsRef<[u8]>) -> Key {
    holding(scheme.parse_key(text.as_ref()).unwrap())
}

/// The same, of material that is there already.
pub(super) fn holding(verifier: Verifier) -> Key {
    Key { id: "key".into(), not_before: None, not_after: None, verifier }
}

/// A delivery that is verified is refused as soon as anything of it is altered: each bit of the body and each character
/// of the headers that matter; a header that is missing, is there twice or lacks its end; a body with more or less.
pub(super) fn refused_when_altered(
    request: &Request,
    headers: &[&str],
    verify: impl Fn(&Request) -> Result<Verified, VerifyError>,
) {
    assert!(verify(request).is_ok());
    for position in 0..request.body.len() * 8 {
        let mut altered = request.clone();
        altered.body[position / 8] ^= 1 << (position % 8);
        assert!(verify(&altered).is_err(), "bit {position} of the body");
    }
    let mut longer = request.clone();
    longer.body.push(b' ');
    assert!(verify(&longer).is_err());
    let mut shorter = request.clone();
    shorter.body.pop();
    assert!(verify(&shorter).is_err());
    for name in headers {
        let value = request.headers[*name].to_str().unwrap().to_owned();
        assert_eq!(verify(&request.clone().without(name)), Err(VerifyError::MissingHeader), "{name}");
        assert_eq!(verify(&request.clone().header(name, &value)), Err(VerifyError::MalformedHeader), "{name}");
        assert!(verify(&request.clone().set(name, "")).is_err(), "{name}");
        for position in 0..value.len() {
            let mut altered = value.clone().into_bytes();
            altered[position] = if altered[position] == b'1' { b'2' } else { b'1' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(verify(&request.clone().set(name, &altered)).is_err(), "{name}: {altered}");
            assert!(verify(&request.clone().set(name, &value[..position])).is_err(), "{name}: {}", &value[..position]);
        }
    }
}

//! Assertions: what the edge knows about a delivery, as a signed JWT (RFC 7519). The target verifies it with the trust bundle in its
//! own namespace, through the certificate chain in `x5c` (RFC 7515 section 4.1.6), or with a key that it shares with the edge.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::keys::InvalidKeys;
use super::verify::InvalidKey;
use crate::api::WebhookTarget;
use crate::contract::route::KeyDocument;
use crate::domain::key_set::is_within;
use crate::edge::front::{CertificateError, LoadedCertificate};
use crate::edge::jose;

/// How long an assertion is valid, in seconds.
const LIFETIME: i64 = 60;
/// Minimum length of a key for HS256, in bytes: that of the hash (RFC 7518 section 3.2).
const MIN_SHARED_KEY: usize = 32;
/// Maximum number of shared keys: each delivery looks at all of them.
pub(super) const MAX_SHARED_KEYS: usize = 8;

/// The claims of an assertion.
#[derive(Debug, Serialize)]
pub struct AssertionClaims<'a> {
    /// The target for which it is; see [`Target::audience`](super::deliver::target::Target::audience).
    #[serde(rename = "aud")]
    pub audience: &'a str,
    /// ID of the delivery.
    #[serde(rename = "jti")]
    pub delivery: &'a str,
    /// The transaction that the delivery belongs to, as in the audit log (RFC 8417 section 2.2).
    pub txn: Uuid,
    /// The endpoint, as `namespace/name`.
    pub endpoint: &'a str,
    /// The key that verified the delivery, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<&'a str>,
    /// Why the destination did not accept the delivery, for a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<&'a str>,
    /// The identity of the caller, from its certificate or its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<&'a str>,
    /// SHA-256 of the body, base64url.
    pub body_sha256: String,
}

/// An assertion.
#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    iat: i64,
    exp: i64,
    #[serde(flatten)]
    claims: &'a AssertionClaims<'a>,
}

impl<'a> Assertion<'a> {
    fn new(iss: &'a str, claims: &'a AssertionClaims<'a>, now: Timestamp) -> Self {
        let iat = now.as_second();
        Self { iss, iat, exp: iat.saturating_add(LIFETIME), claims }
    }
}

/// Signs assertions with the edge's own certificate.
pub struct Signer {
    signer: jose::Signer,
    /// The edge's SPIFFE ID.
    pub issuer: String,
}

impl Signer {
    /// A signer with the edge's certificate.
    ///
    /// # Errors
    /// When the key is of a kind that assertions are not signed with.
    pub fn new(certificate: &LoadedCertificate) -> Result<Self, CertificateError> {
        let chain: Vec<String> = certificate.chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
        let header = |algorithm: &str| json!({"alg": algorithm, "typ": "JWT", "x5c": chain});
        let signer = jose::Signer::new(certificate.key.secret_der(), header).ok_or(CertificateError::SigningKey)?;
        Ok(Self { signer, issuer: certificate.spiffe_id.clone() })
    }

    /// Signs an assertion.
    #[must_use]
    pub fn sign(&self, claims: &AssertionClaims<'_>, now: Timestamp) -> Option<String> {
        self.signer.sign(&Assertion::new(&self.issuer, claims, now))
    }
}

/// A key that the edge shares with a target. It cannot be printed.
pub struct SharedKey {
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    signer: jose::Signer,
}

impl SharedKey {
    fn new(document: &KeyDocument) -> Result<Self, InvalidKey> {
        let KeyDocument { id, material, not_before, not_after } = document;
        let text = material.expose();
        let bytes = text.strip_suffix('\n').unwrap_or(text).as_bytes();
        if bytes.len() < MIN_SHARED_KEY {
            return Err(InvalidKey::new(format!(
                "the key is too short for service.assertion.hs256; write at least {MIN_SHARED_KEY} bytes, at best random ones"
            )));
        }
        let header = |algorithm: &str| json!({"alg": algorithm, "typ": "JWT", "kid": id});
        let signer = jose::Signer::with_secret(bytes, header);
        Ok(Self { not_before: *not_before, not_after: *not_after, signer })
    }

    /// Makes an assertion, with the claims of a signed one.
    #[must_use]
    pub fn sign(&self, issuer: &str, claims: &AssertionClaims<'_>, now: Timestamp) -> Option<String> {
        self.signer.sign(&Assertion::new(issuer, claims, now))
    }

    fn is_live(&self, now: Timestamp) -> bool {
        is_within(self.not_before, self.not_after, now)
    }
}

/// The keys that the edge shares with a target.
pub struct SharedKeys(Vec<SharedKey>);

impl SharedKeys {
    /// Checks a key that a target shares.
    ///
    /// # Errors
    /// Names the key, and says what to write instead.
    pub fn check(document: &KeyDocument) -> Result<(), InvalidKeys> {
        Self::parse(document).map(drop)
    }

    fn parse(document: &KeyDocument) -> Result<SharedKey, InvalidKeys> {
        SharedKey::new(document).map_err(|source| InvalidKeys::Key { id: document.id.clone(), source })
    }

    /// Compiles the keys for `service.assertion` of a target; `None` where it has none.
    ///
    /// # Errors
    /// Names the key that cannot be used, and says what to write instead.
    pub fn compile(target: &WebhookTarget, documents: &[KeyDocument]) -> Result<Option<Self>, InvalidKeys> {
        if target.service.as_ref().is_none_or(|service| service.assertion.is_none()) {
            return Ok(None);
        }
        if documents.len() > MAX_SHARED_KEYS {
            return Err(InvalidKeys::TooMany { max: MAX_SHARED_KEYS });
        }
        documents.iter().map(Self::parse).collect::<Result<_, _>>().map(|keys| Some(Self(keys)))
    }

    /// Of the keys that are valid now, the one that became valid last; of several, the last by its ID.
    #[must_use]
    pub fn current(&self, now: Timestamp) -> Option<&SharedKey> {
        self.0.iter().filter(|key| key.is_live(now)).max_by_key(|key| key.not_before)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::constant_time::verify_slices_are_equal;
    use aws_lc_rs::hmac::{self, HMAC_SHA256};
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::secret::SecretText;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn target(assertion: bool) -> WebhookTarget {
        let mut service = json!({"name": "payments", "port": 80});
        if assertion {
            service["assertion"] = json!({"hs256": {"secretRef": {"name": "shared"}}});
        }
        serde_json::from_value(json!({ "service": service })).unwrap()
    }

    fn key(id: &str, material: &str, not_before: Option<i64>, not_after: Option<i64>) -> KeyDocument {
        let time = |second: i64| Timestamp::from_second(second).unwrap();
        let material = SecretText::new(material.into());
        KeyDocument { id: id.into(), material, not_before: not_before.map(time), not_after: not_after.map(time) }
    }

    fn claims() -> AssertionClaims<'static> {
        AssertionClaims {
            audience: "payments.shop.svc",
            delivery: "1",
            txn: Uuid::nil(),
            endpoint: "shop/payments",
            key_id: None,
            failure: None,
            source: None,
            body_sha256: "h".into(),
        }
    }

    fn shared(keys: &[KeyDocument]) -> SharedKeys {
        SharedKeys::compile(&target(true), keys).unwrap().unwrap()
    }

    #[test]
    fn the_key_that_became_valid_last_is_used() {
        let keys = shared(&[
            key("a", SECRET, None, Some(100)),
            key("b", SECRET, Some(10), Some(50)),
            key("c", SECRET, Some(20), Some(40)),
        ]);
        let current = |second| {
            let now = Timestamp::from_second(second).unwrap();
            let token = keys.current(now)?.sign("spiffe://demo/ns/edge/sa/edge", &claims(), now).unwrap();
            let header = token.split_once('.').unwrap().0;
            let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
            assert_eq!((&header["alg"], &header["typ"]), (&json!("HS256"), &json!("JWT")));
            Some(header["kid"].as_str().unwrap().to_owned())
        };
        let used: Vec<_> = [5, 15, 30, 45, 60, 100].map(current).into_iter().map(Option::unwrap_or_default).collect();
        assert_eq!(used, ["a", "b", "c", "b", "a", ""]);
    }

    #[test]
    fn a_short_key_is_refused_and_not_repeated() {
        let refused = |text: &str| {
            let refused = SharedKeys::compile(&target(true), &[key("first", text, None, None)]).err().unwrap();
            assert!(!refused.to_string().contains(&text[..text.len() - 1]), "{refused}");
            refused.to_string()
        };
        let told = refused(&SECRET[1..]);
        assert!(told.contains("first") && told.contains("32 bytes"), "{told}");
        refused(&format!("{}\n", &SECRET[1..]));
        assert!(SharedKeys::compile(&target(false), &[key("first", "short", None, None)]).unwrap().is_none());
    }

    #[test]
    fn the_number_of_keys_is_limited() {
        let keys = |count| (0..count).map(|id: usize| key(&id.to_string(), SECRET, None, None)).collect::<Vec<_>>();
        assert!(SharedKeys::compile(&target(true), &keys(MAX_SHARED_KEYS)).is_ok());
        let refused = SharedKeys::compile(&target(true), &keys(MAX_SHARED_KEYS + 1)).err();
        assert_eq!(refused, Some(InvalidKeys::TooMany { max: MAX_SHARED_KEYS }));
    }

    #[test]
    fn the_mac_is_over_header_and_claims() {
        let keys = shared(&[key("a", &format!("{SECRET}\n"), None, None)]);
        let now = Timestamp::from_second(1000).unwrap();
        let token = keys.current(now).unwrap().sign("spiffe://demo/ns/edge/sa/edge", &claims(), now).unwrap();
        let (message, mac) = token.rsplit_once('.').unwrap();
        let expected = hmac::sign(&hmac::Key::new(HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
        verify_slices_are_equal(expected.as_ref(), &URL_SAFE_NO_PAD.decode(mac).unwrap()).unwrap();
        let payload = message.split_once('.').unwrap().1;
        let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!(
            (&payload["iat"], &payload["exp"], &payload["aud"]),
            (&json!(1000), &json!(1060), &json!("payments.shop.svc"))
        );
    }
}

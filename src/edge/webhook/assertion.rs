//! Assertions: what the edge knows about a delivery, as a signed JWT (RFC 7519). The target verifies it with the trust bundle in its
//! own namespace, through the certificate chain in `x5c` (RFC 7515 section 4.1.6).

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::edge::front::{CertificateError, LoadedCertificate};

/// How long an assertion is valid, in seconds.
const LIFETIME: i64 = 60;
/// Length of a signature in base64, with the dot before it, in bytes.
const MAX_SIGNATURE: usize = 87;

/// The claims of an assertion.
#[derive(Debug, Serialize)]
pub struct AssertionClaims<'a> {
    /// The target for which it is; see [`Target::audience`](super::deliver::target::Target::audience).
    #[serde(rename = "aud")]
    pub audience: &'a str,
    /// ID of the delivery.
    #[serde(rename = "jti")]
    pub delivery: &'a str,
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

/// A key, and for ECDSA the hash of the JWT header and the dot: it begins every message that is signed.
enum Key {
    Ecdsa(EcdsaKeyPair, digest::Context),
    Ed25519(Ed25519KeyPair),
}

/// Signs assertions with the edge's own certificate.
pub struct Signer {
    key: Key,
    /// The JWT header, encoded, and a dot: it is the same for all.
    header: String,
    issuer: String,
}

impl Signer {
    /// A signer with the edge's certificate.
    ///
    /// # Errors
    /// When the key is of a kind that assertions are not signed with.
    pub fn new(certificate: &LoadedCertificate) -> Result<Self, CertificateError> {
        let der = certificate.key.secret_der();
        let chain: Vec<String> = certificate.chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
        let header = |algorithm| {
            let header = json!({"alg": algorithm, "typ": "JWT", "x5c": chain});
            URL_SAFE_NO_PAD.encode(header.to_string()) + "."
        };
        let (key, header) = if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            let header = header("ES256");
            let mut hash = digest::Context::new(&SHA256);
            hash.update(header.as_bytes());
            (Key::Ecdsa(key, hash), header)
        } else {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| CertificateError::SigningKey)?;
            (Key::Ed25519(key), header("EdDSA"))
        };
        Ok(Self { key, header, issuer: certificate.spiffe_id.clone() })
    }

    /// Signs an assertion.
    #[must_use]
    pub fn sign(&self, claims: &AssertionClaims<'_>, now: Timestamp) -> Option<String> {
        #[derive(Serialize)]
        struct All<'a> {
            iss: &'a str,
            iat: i64,
            exp: i64,
            #[serde(flatten)]
            claims: &'a AssertionClaims<'a>,
        }
        let now = now.as_second();
        let all = All { iss: &self.issuer, iat: now, exp: now.saturating_add(LIFETIME), claims };
        let payload = serde_json::to_vec(&all).ok()?;
        let mut token = String::with_capacity(self.header.len() + 2 * payload.len() + MAX_SIGNATURE);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = match &self.key {
            Key::Ecdsa(key, hash) => {
                let mut hash = hash.clone();
                hash.update(&token.as_bytes()[self.header.len()..]);
                key.sign_digest(&hash.finish()).ok()?
            }
            Key::Ed25519(key) => key.try_sign(token.as_bytes()).ok()?,
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(token)
    }
}

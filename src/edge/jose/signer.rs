//! Compact JSON Web Signatures (RFC 7515): one signer has one key and one header.

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

/// Length of a signature in base64, with the dot before it, in bytes.
const MAX_SIGNATURE: usize = 87;

enum Key {
    /// With the hash of the header and the dot after it: it begins every message that is signed.
    Ecdsa(EcdsaKeyPair, digest::Context),
    Ed25519(Ed25519KeyPair),
    Hmac(Box<hmac::Key>),
}

/// Signs payloads. The key cannot be printed.
pub struct Signer {
    key: Key,
    /// The header, encoded, and a dot: it is the same for all.
    header: String,
}

impl Signer {
    /// A signer with a private key in PKCS#8: ECDSA on P-256 (`ES256`) or Ed25519 (`EdDSA`). `header` gets the name of the algorithm.
    /// `None` for a key of another kind.
    #[must_use]
    pub fn new(pkcs8: &[u8], header: impl FnOnce(&str) -> Value) -> Option<Self> {
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8) {
            let header = encode(&header("ES256"));
            let mut hash = digest::Context::new(&SHA256);
            hash.update(header.as_bytes());
            return Some(Self { key: Key::Ecdsa(key, hash), header });
        }
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
        Some(Self { key: Key::Ed25519(key), header: encode(&header("EdDSA")) })
    }

    /// A signer with a secret that the verifier shares (`HS256`).
    #[must_use]
    pub fn with_secret(secret: &[u8], header: impl FnOnce(&str) -> Value) -> Self {
        Self { key: Key::Hmac(Box::new(hmac::Key::new(HMAC_SHA256, secret))), header: encode(&header("HS256")) }
    }

    /// The public key of `ES256`, as an uncompressed point (SEC 1 section 2.3.3); `None` for another algorithm.
    #[must_use]
    pub fn public_point(&self) -> Option<&[u8]> {
        match &self.key {
            Key::Ecdsa(key, _) => Some(key.public_key().as_ref()),
            Key::Ed25519(_) | Key::Hmac(_) => None,
        }
    }

    /// Signs a payload, which is encoded as JSON. `None` if the library fails.
    #[must_use]
    pub fn sign(&self, payload: &impl Serialize) -> Option<String> {
        let payload = serde_json::to_vec(payload).ok()?;
        let mut token = String::with_capacity(self.header.len() + 2 * payload.len() + MAX_SIGNATURE);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        match &self.key {
            Key::Ecdsa(key, hash) => {
                let mut hash = hash.clone();
                hash.update(&token.as_bytes()[self.header.len()..]);
                end(&mut token, key.sign_digest(&hash.finish()).ok()?.as_ref());
            }
            Key::Ed25519(key) => {
                let signature = key.try_sign(token.as_bytes()).ok()?;
                end(&mut token, signature.as_ref());
            }
            Key::Hmac(key) => {
                let tag = hmac::sign(key, token.as_bytes());
                end(&mut token, tag.as_ref());
            }
        }
        Some(token)
    }
}

fn encode(header: &Value) -> String {
    URL_SAFE_NO_PAD.encode(header.to_string()) + "."
}

fn end(token: &mut String, signature: &[u8]) {
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, token);
}

//! Public keys as JSON Web Keys (RFC 7517): ECDSA on P-256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A public key on P-256 (RFC 7518 section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct P256PublicKey {
    x: String,
    y: String,
}

impl P256PublicKey {
    /// From an uncompressed point (SEC 1 section 2.3.3); `None` for anything else.
    #[must_use]
    pub fn from_point(point: &[u8]) -> Option<Self> {
        let coordinates = point.strip_prefix(&[4])?;
        if coordinates.len() != 64 {
            return None;
        }
        let [x, y] = [&coordinates[..32], &coordinates[32..]].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
        Some(Self { x, y })
    }

    /// Its thumbprint (RFC 7638), base64url: the ID of the key.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let Self { x, y } = self;
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()))
    }

    /// As a key that verifies signatures with `ES256`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "x": self.x, "y": self.y, "kid": self.thumbprint(), "alg": "ES256", "use": "sig",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_other_implementations() {
        // The key of RFC 7515 appendix A.3; the thumbprint as the Python library jwcrypto computes it.
        let [x, y] = ["f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"]
            .map(|coordinate| URL_SAFE_NO_PAD.decode(coordinate).unwrap());
        let key = P256PublicKey::from_point(&[&[4], x.as_slice(), y.as_slice()].concat()).unwrap();
        assert_eq!(key.thumbprint(), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
        assert_eq!(P256PublicKey::from_point(&[4; 64]), None);
        assert_eq!(P256PublicKey::from_point(&[2; 65]), None);
    }
}

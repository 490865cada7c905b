//! The public keys of an issuer of JWTs (RFC 7517). A key fixes its algorithm; a token cannot choose another.

use std::borrow::Cow;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaParameters, RsaPublicKeyComponents,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::edge::encoding::base64url;
use crate::edge::work;

/// Maximum number of keys in a set.
const MAX_KEYS: usize = 32;

/// Why a JWK Set cannot be used, with what to write instead. It never repeats a part of a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidKeySet(pub Cow<'static, str>);

impl InvalidKeySet {
    fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

/// Public keys that can verify.
pub struct KeySet(Vec<Jwk>);

struct Jwk {
    id: Option<String>,
    algorithm: &'static str,
    key: ParsedPublicKey,
    /// See [`work`].
    work: usize,
}

#[derive(Deserialize)]
struct Entries {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<IgnoredAny>,
}

impl KeySet {
    /// Reads a JWK Set. Keys of other kinds and for other purposes are skipped.
    ///
    /// # Errors
    /// Says what to write instead.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidKeySet> {
        // The error of serde_json could quote a part of a key.
        let set: Entries = serde_json::from_slice(text)
            .map_err(|_| InvalidKeySet::new(r#"not a JWK Set; write {"keys": [...]} with the issuer's public keys"#))?;
        if set.keys.len() > MAX_KEYS {
            return Err(InvalidKeySet::new(format!("the JWK Set holds too many keys; write at most {MAX_KEYS}")));
        }
        if set.keys.iter().any(|entry| entry.d.is_some() || entry.kty == "oct") {
            return Err(InvalidKeySet::new(
                "the JWK Set holds a secret key, which nobody but the issuer may have; write public keys",
            ));
        }
        let mut keys = Vec::new();
        for entry in set.keys.into_iter().filter(Entry::is_for_signatures) {
            keys.extend(entry.read()?);
        }
        if keys.is_empty() {
            return Err(InvalidKeySet::new(
                "the JWK Set holds no key that can be used; write keys for ES256, EdDSA, RS256 or PS256",
            ));
        }
        Ok(Self(keys))
    }

    /// What a token takes at most that names none of the keys, in bytes that are hashed in the same time.
    #[must_use]
    pub fn work(&self) -> usize {
        self.0.iter().map(|key| key.work).sum()
    }

    /// Whether there is a key with this ID, or none is given.
    #[must_use]
    pub fn has(&self, id: Option<&str>) -> bool {
        id.is_none() || self.0.iter().any(|key| key.id.as_deref() == id)
    }

    /// How many keys a signature with this algorithm is tried with, of a token that names this key, or none.
    #[must_use]
    pub fn candidates(&self, algorithm: &str, id: Option<&str>) -> usize {
        self.matching(algorithm, id).count()
    }

    fn matching(&self, algorithm: &str, id: Option<&str>) -> impl Iterator<Item = &Jwk> {
        let matches = move |key: &&Jwk| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id);
        self.0.iter().filter(matches)
    }

    /// Whether the signature is of a key with this algorithm and, where one is given, this ID.
    #[must_use]
    pub fn verifies(&self, algorithm: &str, id: Option<&str>, signed: &[u8], signature: &[u8]) -> bool {
        self.matching(algorithm, id).any(|key| key.key.verify_sig(signed, signature).is_ok())
    }
}

impl Entry {
    fn is_for_signatures(&self) -> bool {
        self.purpose.as_ref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"))
    }

    fn read(self) -> Result<Option<Jwk>, InvalidKeySet> {
        let (algorithm, key) = match (self.kty.as_str(), self.crv.as_deref(), self.alg.as_deref()) {
            ("EC", Some("P-256"), None | Some("ES256")) => ("ES256", self.p256()),
            ("OKP", Some("Ed25519"), None | Some("EdDSA")) => ("EdDSA", self.ed25519()),
            ("RSA", None, Some("RS256")) => ("RS256", self.rsa(&RSA_PKCS1_2048_8192_SHA256)),
            ("RSA", None, Some("PS256")) => ("PS256", self.rsa(&RSA_PSS_2048_8192_SHA256)),
            ("RSA", None, None) => {
                return Err(InvalidKeySet::new(
                    "an RSA key of the JWK Set names no algorithm; write \"alg\": \"RS256\" or \"PS256\"",
                ));
            }
            _ => return Ok(None),
        };
        let key =
            key.ok_or_else(|| InvalidKeySet::new(format!("a key of the JWK Set is not a public key for {algorithm}")))?;
        // The modulus in base64 is a third longer than its bytes.
        let work = self.n.as_ref().map_or(work::ELLIPTIC, |n| work::rsa(n.len() / 4 * 3));
        Ok(Some(Jwk { id: self.kid, algorithm, key, work }))
    }

    fn p256(&self) -> Option<ParsedPublicKey> {
        let (x, y) = (base64url(self.x.as_ref()?)?, base64url(self.y.as_ref()?)?);
        let point = [&[4], x.as_slice(), &y].concat();
        if x.len() == 32 && y.len() == 32 { ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok() } else { None }
    }

    fn ed25519(&self) -> Option<ParsedPublicKey> {
        let x = base64url(self.x.as_ref()?)?;
        if x.len() == 32 { ParsedPublicKey::new(&ED25519, x).ok() } else { None }
    }

    fn rsa(&self, parameters: &'static RsaParameters) -> Option<ParsedPublicKey> {
        let (n, e) = (base64url(self.n.as_ref()?)?, base64url(self.e.as_ref()?)?);
        // 2048 to 8192 bits, without leading zeros.
        let long_enough = n.len() > 256 || n.len() == 256 && n.first().is_some_and(|byte| *byte >= 128);
        if !long_enough || n.len() > work::MAX_RSA_KEY {
            return None;
        }
        RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn parse(keys: &str) -> Result<Vec<&'static str>, String> {
        let set = KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes()).map_err(|error| error.to_string())?;
        Ok(set.0.iter().map(|key| key.algorithm).collect())
    }

    fn rsa(bytes: usize, more: &str) -> String {
        let n = "v".to_owned() + &"_".repeat((bytes * 8).div_ceil(6) - 2) + "w";
        format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"{more}}}"#)
    }

    /// The examples of RFC 8037 appendix A.4 (Ed25519) and RFC 7515 appendix A.3 (ES256).
    #[test]
    fn the_signatures_of_the_standards_are_verified() {
        let p256 = r#"{"kty":"EC","crv":"P-256","kid":"p","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let set = KeySet::parse(format!(r#"{{"keys":[{ED25519},{p256}]}}"#).as_bytes()).unwrap();
        let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature =
            base64url("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
                .unwrap();
        assert!(set.verifies("EdDSA", None, signed, &signature));
        assert!(!set.verifies("EdDSA", Some("p"), signed, &signature));
        assert!(!set.verifies("ES256", None, signed, &signature));
        let signed = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature =
            base64url("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
                .unwrap();
        assert!(set.verifies("ES256", None, signed, &signature));
        assert!(set.verifies("ES256", Some("p"), signed, &signature));
        assert!(!set.verifies("ES256", Some("q"), signed, &signature));
        assert!(!set.verifies("EdDSA", None, signed, &signature));
    }

    #[test]
    fn the_kind_of_a_key_fixes_its_algorithm() {
        assert_eq!(parse(ED25519), Ok(vec!["EdDSA"]));
        assert_eq!(parse(&rsa(256, r#","alg":"PS256""#)), Ok(vec!["PS256"]));
        assert_eq!(parse(&rsa(256, r#","alg":"RS256""#)), Ok(vec!["RS256"]));
        assert!(parse(&rsa(256, "")).unwrap_err().contains("alg"));
    }

    #[test]
    fn keys_of_no_use_are_left_out() {
        let encrypts = ED25519.replace('}', r#","use":"enc"}"#);
        let signs = ED25519.replace('}', r#","key_ops":["sign"]}"#);
        let other = r#"{"kty":"EC","crv":"P-521","x":"","y":""}"#;
        let none = ED25519.replace('}', r#","alg":"none"}"#);
        assert_eq!(parse(&format!("{encrypts},{signs},{other},{none},{ED25519}")), Ok(vec!["EdDSA"]));
        for useless in ["", &encrypts, &signs, other, &none, &rsa(256, r#","alg":"RS512""#)] {
            assert!(parse(useless).unwrap_err().contains("no key that can be used"), "{useless}");
        }
    }

    #[test]
    fn secret_short_and_broken_keys_are_refused() {
        let private = ED25519.replace('}', r#","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}"#);
        let shared = r#"{"kty":"oct","k":"AAAA"}"#;
        for secret in [&private, shared] {
            assert!(parse(&format!("{ED25519},{secret}")).unwrap_err().contains("secret"), "{secret}");
        }
        let short = ED25519.replace("URo", "");
        for broken in [&short, &rsa(128, r#","alg":"RS256""#), &rsa(1025, r#","alg":"RS256""#)] {
            assert!(parse(broken).unwrap_err().contains("is not a public key"), "{broken}");
        }
        assert!(parse(&vec![ED25519; MAX_KEYS + 1].join(",")).unwrap_err().contains("at most"));
        for no_set in ["", "[]", "{}", r#"{"keys":"hush"}"#] {
            assert!(KeySet::parse(no_set.as_bytes()).err().unwrap().to_string().starts_with("not a JWK Set"));
        }
    }
}

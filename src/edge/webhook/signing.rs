//! The sender's side of Standard Webhooks: `v1` (HMAC-SHA256) and `v1a` (Ed25519) signatures of `{id}.{timestamp}.{body}`, one by
//! every live key. Pure: `now` is a parameter.

use std::fmt;

use aws_lc_rs::hmac::{self, Context, HMAC_SHA256};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::keys::InvalidKeys;
use super::verify::InvalidKey;
use crate::contract::route::KeyDocument;
use crate::domain::key_set::is_within;
use crate::domain::secret::SecretText;

/// Prefixes of a private and of a public key.
const PRIVATE: &str = "whsk_";
const PUBLIC: &str = "whpk_";
/// Bytes of the seed of an Ed25519 key.
const SEED: usize = 32;

/// A key that signs. It cannot be printed.
pub struct SigningKey {
    /// Its ID.
    pub id: String,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    secret: Secret,
}

enum Secret {
    Hmac(Box<hmac::Key>),
    Ed25519(Ed25519KeyPair),
}

/// The headers of a signed delivery beside its ID.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// `webhook-timestamp`: seconds since 1970.
    pub timestamp: String,
    /// `webhook-signature`: a signature by every live key.
    pub signatures: String,
}

impl SigningKey {
    /// Reads a key.
    ///
    /// # Errors
    /// Says what to write instead, and never repeats the key.
    pub fn parse(key: &KeyDocument) -> Result<Self, InvalidKeys> {
        let text = key.material.expose();
        let line = text.strip_suffix('\n').unwrap_or(text);
        let secret = Secret::parse(line).map_err(|source| InvalidKeys::Key { id: key.id.clone(), source })?;
        Ok(Self { id: key.id.clone(), not_before: key.not_before, not_after: key.not_after, secret })
    }

    /// Whether the key is valid now; at the moment of its end it already is not.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        is_within(self.not_before, self.not_after, now)
    }

    fn sign(&self, parts: &[&[u8]]) -> Option<String> {
        match &self.secret {
            Secret::Hmac(key) => {
                let mut context = Context::with_key(key);
                for part in parts {
                    context.update(part);
                }
                Some(format!("v1,{}", STANDARD.encode(context.sign())))
            }
            Secret::Ed25519(pair) => {
                let signature = pair.try_sign(&parts.concat()).ok()?;
                Some(format!("v1a,{}", STANDARD.encode(signature)))
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Secret {
    fn parse(line: &str) -> Result<Self, InvalidKey> {
        const EXPECTED: &str = "write whsec_ and the base64 of 24 to 64 random bytes, or whsk_ and the base64 of an Ed25519 \
                                private key, which is its seed, alone or followed by its public key";
        let decode = |base64: &str| {
            STANDARD.decode(base64).map(Zeroizing::new).map_err(|_| InvalidKey::new(format!("not base64; {EXPECTED}")))
        };
        if let Some(secret) = line.strip_prefix("whsec_") {
            let bytes = decode(secret)?;
            let fits = (24..=64).contains(&bytes.len());
            let key = fits.then(|| Self::Hmac(Box::new(hmac::Key::new(HMAC_SHA256, &bytes))));
            key.ok_or_else(|| InvalidKey::new(format!("the key has the wrong length; {EXPECTED}")))
        } else if line.starts_with(PRIVATE) {
            let pair =
                private(line).ok_or_else(|| InvalidKey::new(format!("not an Ed25519 private key; {EXPECTED}")))?;
            Ok(Self::Ed25519(pair))
        } else if line.starts_with(PUBLIC) {
            Err(InvalidKey::new(format!("that is a public key, which cannot sign; {EXPECTED}")))
        } else {
            Err(InvalidKey::new(format!("not a key of Standard Webhooks; {EXPECTED}")))
        }
    }
}

/// Signs a delivery with every live key, in their order; `None` when none is live.
#[must_use]
pub fn sign(keys: &[SigningKey], id: &str, body: &[u8], now: Timestamp) -> Option<Signed> {
    let timestamp = now.as_second().to_string();
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let live = keys.iter().filter(|key| key.is_live(now));
    let signatures = live.map(|key| key.sign(&parts)).collect::<Option<Vec<_>>>()?.join(" ");
    (!signatures.is_empty()).then_some(Signed { timestamp, signatures })
}

/// An Ed25519 key pair, as Standard Webhooks writes it.
pub struct KeyPairText {
    /// `whsk_` and the base64 of seed and public key.
    pub private: SecretText,
    /// `whpk_` and the base64 of the public key.
    pub public: String,
}

/// The Ed25519 key pair of a seed.
#[must_use]
pub fn key_pair(seed: &[u8; SEED]) -> Option<KeyPairText> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let public = pair.public_key().as_ref();
    let whole = Zeroizing::new([seed.as_slice(), public].concat());
    Some(KeyPairText {
        private: SecretText::new(format!("{PRIVATE}{}", STANDARD.encode(&*whole))),
        public: format!("{PUBLIC}{}", STANDARD.encode(public)),
    })
}

/// The public key of a private one; `None` for any other kind of key.
#[must_use]
pub fn public_of(key: &str) -> Option<String> {
    let pair = private(key.strip_suffix('\n').unwrap_or(key))?;
    Some(format!("{PUBLIC}{}", STANDARD.encode(pair.public_key())))
}

/// Libraries write the seed alone, or the seed and the public key.
fn private(line: &str) -> Option<Ed25519KeyPair> {
    let bytes = Zeroizing::new(STANDARD.decode(line.strip_prefix(PRIVATE)?).ok()?);
    match bytes.split_at_checked(SEED)? {
        (seed, []) => Ed25519KeyPair::from_seed_unchecked(seed).ok(),
        (seed, public) => Ed25519KeyPair::from_seed_and_public_key(seed, public).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn key(id: &str, material: &str) -> KeyDocument {
        KeyDocument { id: id.into(), material: SecretText::new(material.into()), not_before: None, not_after: None }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_example_of_the_standard_is_made() {
        let keys = [SigningKey::parse(&key("a", SECRET)).unwrap()];
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = sign(&keys, id, br#"{"test": 2432232314}"#, at(1_614_265_330)).unwrap();
        assert_eq!(signed.timestamp, "1614265330");
        assert_eq!(signed.signatures, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_live_key_signs_and_no_other() {
        let KeyPairText { private, public } = key_pair(&[7; 32]).unwrap();
        let private = private.expose();
        assert_eq!(public_of(private).as_deref(), Some(public.as_str()));
        let ended = KeyDocument { not_after: Some(at(100)), ..key("ended", SECRET) };
        let next = KeyDocument { not_before: Some(at(200)), ..key("next", SECRET) };
        let keys = [ended, key("mac", SECRET), key("public", private), next];
        let keys = keys.map(|key| SigningKey::parse(&key).unwrap());
        let versions = |now| -> Vec<String> {
            let signed = sign(&keys, "msg_1", b"{}", at(now)).unwrap().signatures;
            signed.split(' ').map(|it| it.split(',').next().unwrap().to_owned()).collect()
        };
        assert_eq!(versions(99), ["v1", "v1", "v1a"]);
        assert_eq!(versions(100), ["v1", "v1a"], "the end itself is too late");
        assert_eq!(versions(200), ["v1", "v1a", "v1"]);
        assert_eq!(sign(&keys[..1], "msg_1", b"{}", at(100)), None);
        assert!(!format!("{keys:?}").contains(&private[5..]));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_told() {
        let KeyPairText { private, public } = key_pair(&[7; 32]).unwrap();
        let private = private.expose();
        let mut other = STANDARD.decode(&private[5..]).unwrap();
        other[40] ^= 1;
        for wrong in [
            "",
            "secret",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_%%%%",
            &format!("whsec_{}", STANDARD.encode([1; 65])),
            "whsk_AAAA",
            &format!("whsk_{}", STANDARD.encode([1; 33])),
            &format!("whsk_{}", STANDARD.encode(other)),
            &public,
        ] {
            let error = SigningKey::parse(&key("k1", wrong)).unwrap_err().to_string();
            assert!(error.starts_with("the key k1: ") && error.contains("write whsec_"), "{wrong}: {error}");
            assert!(wrong.len() < 9 || !error.contains(&wrong[6..]), "{error}");
        }
        assert!(SigningKey::parse(&key("seed", &format!("whsk_{}", STANDARD.encode([7; 32])))).is_ok());
        assert!(SigningKey::parse(&key("line", &format!("{SECRET}\n"))).is_ok());
    }
}

//! A JWT in `Authorization: Bearer`, read strictly. The scheme `jwt` and caller tokens (`source.jwt`) both use it, and check further
//! claims themselves.

use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::encoding::base64url;
use super::error::VerifyError;
use super::keys::{Key, signer};
use super::timestamp::Window;
use super::verifier::Verifier;
use super::{header, timestamp};

/// Maximum lifetime of a token, in seconds.
const MAX_LIFETIME: i64 = 3600;

/// The issuer, audience and subjects that a token must have.
#[derive(Clone, Debug)]
pub struct ExpectedClaims {
    /// What the claim `iss` must be.
    pub issuer: String,
    /// What the claim `aud` must be or contain.
    pub audience: String,
    /// What the claim `sub` must be one of; `None` for any, or none at all.
    pub subjects: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515 section 4.1.11); none is.
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: Option<String>,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A token that a live key has signed, and that is valid now.
pub struct BearerToken<'a> {
    /// The key that signed it.
    pub key: &'a Key,
    /// When it was issued.
    pub issued_at: Timestamp,
    claims: Claims,
    payload: Vec<u8>,
}

impl<'a> BearerToken<'a> {
    /// Reads and verifies the token of a request. Its age is limited by its expiry and the maximum lifetime only.
    pub fn verify(headers: &HeaderMap, keys: &'a [Key], window: &Window, now: Timestamp) -> Result<Self, VerifyError> {
        let token = header::required(headers, "authorization")?;
        let token = token.strip_prefix("Bearer ").ok_or(VerifyError::MalformedHeader)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(VerifyError::MalformedHeader)?;
        let (header, payload) = signed.split_once('.').ok_or(VerifyError::MalformedHeader)?;
        let decode = |text| base64url(text).ok_or(VerifyError::MalformedHeader);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| VerifyError::MalformedHeader)?;
        if header.crit.is_some() {
            return Err(VerifyError::MalformedHeader);
        }
        if !["ES256", "EdDSA", "RS256", "PS256"].contains(&header.alg.as_str()) {
            return Err(VerifyError::WrongAlgorithm);
        }
        let key = signer(keys, now, |key| match &key.verifier {
            Verifier::Jwks(keys) => keys.verifies(&header.alg, header.kid.as_deref(), signed.as_bytes(), &signature),
            _ => false,
        })?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| VerifyError::WrongClaims)?;
        let issued_at = claims.check_times(window, now)?;
        Ok(Self { key, issued_at, claims, payload })
    }

    /// Whether issuer, audience and subject are as expected.
    pub fn matches(&self, expected: &ExpectedClaims) -> bool {
        let Claims { iss, aud, sub, .. } = &self.claims;
        let audience = match aud {
            Audience::One(one) => *one == expected.audience,
            Audience::Several(several) => several.contains(&expected.audience),
        };
        let subject = match &expected.subjects {
            Some(subjects) => sub.as_ref().is_some_and(|sub| subjects.contains(sub)),
            None => true,
        };
        *iss == expected.issuer && audience && subject
    }

    /// The subject.
    pub fn subject(&self) -> Option<&str> {
        self.claims.sub.as_deref()
    }

    /// Further claims.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, VerifyError> {
        serde_json::from_slice(&self.payload).map_err(|_| VerifyError::WrongClaims)
    }
}

impl Claims {
    /// The time at which the token was issued, if it is valid now and its lifetime is not too long.
    fn check_times(&self, window: &Window, now: Timestamp) -> Result<Timestamp, VerifyError> {
        if !self.exp.checked_sub(self.iat).is_some_and(|life| (1..=MAX_LIFETIME).contains(&life)) {
            return Err(VerifyError::WrongClaims);
        }
        if now >= timestamp::from_seconds(self.exp)? {
            return Err(VerifyError::TooOld);
        }
        let issued_at = timestamp::from_seconds(self.iat)?;
        let begins_at = self.nbf.map_or(Ok(issued_at), timestamp::from_seconds)?;
        if issued_at.max(begins_at).duration_since(now) > window.future {
            return Err(VerifyError::TooNew);
        }
        Ok(issued_at)
    }
}

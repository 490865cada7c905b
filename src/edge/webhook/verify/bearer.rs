//! A JWT in `Authorization: Bearer`, read strictly. The scheme `jwt` and caller tokens (`source.jwt`) both use it, and check further
//! claims themselves.

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::VerifyError;
use super::header;
use super::keys::{Key, signer};
use super::timestamp::Window;
use super::verifier::Verifier;
use crate::edge::jose::{Audience, Times, UnverifiedToken};

/// Maximum lifetime of a token.
const MAX_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

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
struct Claims {
    iss: String,
    aud: Audience,
    sub: Option<String>,
}

/// A token that a live key has signed, and that is valid now.
pub struct BearerToken<'a> {
    /// The key that signed it.
    pub key: &'a Key,
    /// When it was issued.
    pub issued_at: Timestamp,
    claims: Claims,
    token: UnverifiedToken<'a>,
}

impl<'a> BearerToken<'a> {
    /// Reads and verifies the token of a request. Its age is limited by its expiry and the maximum lifetime only.
    pub fn verify(
        headers: &'a HeaderMap,
        keys: &'a [Key],
        window: &Window,
        now: Timestamp,
    ) -> Result<Self, VerifyError> {
        let token = header::required(headers, "authorization")?;
        let token = UnverifiedToken::parse(token.strip_prefix("Bearer ").ok_or(VerifyError::MalformedHeader)?)?;
        let key = signer(keys, now, |key| match &key.verifier {
            Verifier::Jwks(keys) => token.is_signed_by(keys),
            _ => false,
        })?;
        let issued_at = token.claims::<Times>()?.check(MAX_LIFETIME, window.future, now)?;
        Ok(Self { key, issued_at, claims: token.claims()?, token })
    }

    /// Whether issuer, audience and subject are as expected.
    pub fn matches(&self, expected: &ExpectedClaims) -> bool {
        let Claims { iss, aud, sub } = &self.claims;
        let subject = match &expected.subjects {
            Some(subjects) => sub.as_ref().is_some_and(|sub| subjects.contains(sub)),
            None => true,
        };
        *iss == expected.issuer && aud.is_for(|aud| aud == expected.audience) && subject
    }

    /// The subject.
    pub fn subject(&self) -> Option<&str> {
        self.claims.sub.as_deref()
    }

    /// Further claims.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, VerifyError> {
        Ok(self.token.claims()?)
    }
}

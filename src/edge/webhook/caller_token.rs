//! The caller token (`source.jwt`): a JWT that identifies the caller, in addition to the signature of the delivery. It is not bound to
//! a body, and may be sent again while it is valid.

use std::slice;

use http::HeaderMap;
use jiff::Timestamp;

use super::keys::{self, InvalidKeys};
use super::outcome::Reason;
use super::verify::bearer::{BearerToken, ExpectedClaims};
use super::verify::keys::Key;
use super::verify::{Verifier, Window};
use crate::api::{JwtPin, WebhookSource};
use crate::contract::route::KeyDocument;

/// Maximum number of key sets that a token is tried with: each costs an asymmetric verification.
pub(super) const MAX_KEY_SETS: usize = 16;

/// Which callers are allowed, by the token that they send.
pub struct CallerTokenPolicy {
    expected: ExpectedClaims,
    keys: Vec<Key>,
    window: Window,
}

impl CallerTokenPolicy {
    /// Compiles `source.jwt` with the keys of the issuer; `window` is how far their clock may differ. `None` without `source.jwt`.
    ///
    /// # Errors
    /// Says what is wrong with the keys.
    pub fn compile(
        source: Option<&WebhookSource>,
        keys: &[KeyDocument],
        window: Window,
    ) -> Result<Option<Self>, InvalidKeys> {
        let Some(jwt) = source.and_then(|source| source.jwt.as_ref()) else { return Ok(None) };
        let secret = &jwt.secret_ref.name;
        if keys.len() > MAX_KEY_SETS {
            return Err(InvalidKeys::TooManyIssuerKeys { secret: secret.clone(), max: MAX_KEY_SETS });
        }
        Ok(Some(Self::new(jwt, keys::compile(keys, Verifier::jwks)?, window)))
    }

    /// Checks a key of an issuer.
    ///
    /// # Errors
    /// Names the key, and says what to write instead.
    pub fn check(key: &KeyDocument) -> Result<(), InvalidKeys> {
        keys::compile(slice::from_ref(key), Verifier::jwks).map(drop)
    }

    /// A policy with the keys of the issuer.
    #[must_use]
    pub fn new(jwt: &JwtPin, keys: Vec<Key>, window: Window) -> Self {
        let JwtPin { issuer, audience, subjects, secret_ref: _ } = jwt.clone();
        Self { expected: ExpectedClaims { issuer, audience, subjects: Some(subjects) }, keys, window }
    }

    /// What a token takes at most, in bytes that are hashed in the same time.
    #[must_use]
    pub fn work(&self) -> usize {
        self.keys.iter().map(|key| key.verifier.work(0)).sum()
    }

    /// The identity of the caller, as `jwt:<issuer>#<subject>`, which is never a name in a certificate.
    ///
    /// # Errors
    /// Why the token does not authenticate an allowed caller.
    pub fn authenticate(&self, headers: &HeaderMap, now: Timestamp) -> Result<String, Reason> {
        let token = BearerToken::verify(headers, &self.keys, &self.window, now)?;
        match token.subject() {
            Some(subject) if token.matches(&self.expected) => Ok(format!("jwt:{}#{subject}", self.expected.issuer)),
            _ => Err(Reason::WrongSource),
        }
    }
}

#[cfg(test)]
mod tests;

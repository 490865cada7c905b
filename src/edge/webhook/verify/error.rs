//! Why a delivery is not verified, and why a key cannot be used.

use std::borrow::Cow;

use thiserror::Error;

use crate::edge::jose::{InvalidKeySet, TokenError};

/// Why a key cannot be used, with what to write instead. It never repeats the key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidKey(Cow<'static, str>);

impl InvalidKey {
    /// A reason, with what to write instead.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

impl From<InvalidKeySet> for InvalidKey {
    fn from(error: InvalidKeySet) -> Self {
        Self::new(error.0)
    }
}

/// Why a delivery is not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VerifyError {
    /// A required header is missing.
    MissingHeader,
    /// A header is repeated, or its value is invalid.
    MalformedHeader,
    /// The timestamp is older than the tolerance.
    TooOld,
    /// The timestamp is further ahead than the tolerance.
    TooNew,
    /// No key is live.
    NoKey,
    /// The signature is not of a live key.
    WrongSignature,
    /// The digest in a header is not that of the body.
    WrongDigest,
    /// The signature does not cover everything that it must.
    NotCovered,
    /// The algorithm is not the one of the endpoint.
    WrongAlgorithm,
    /// The claims of the JWT are not as the endpoint expects.
    WrongClaims,
}

impl From<TokenError> for VerifyError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::MalformedHeader,
            TokenError::WrongAlgorithm => Self::WrongAlgorithm,
            TokenError::WrongClaims => Self::WrongClaims,
            TokenError::Expired => Self::TooOld,
            TokenError::NotYetValid => Self::TooNew,
        }
    }
}

//! Why a delivery is not verified, and why a key cannot be used.

use std::borrow::Cow;

use thiserror::Error;

/// Why a key cannot be used, with what to write instead. It never repeats the key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidKey(Cow<'static, str>);

impl InvalidKey {
    /// A reason.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

/// Why a delivery was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VerifyError {
    /// A header that the scheme needs is not there.
    MissingHeader,
    /// A header is there twice, or what it says cannot be read.
    MalformedHeader,
    /// The timestamp is older than the tolerance.
    TooOld,
    /// The timestamp is further ahead than the tolerance.
    TooNew,
    /// No key is live.
    NoKey,
    /// No live key has made the signature.
    WrongSignature,
    /// The digest in the headers is not that of the body.
    WrongDigest,
    /// The signature does not cover what it must.
    NotCovered,
    /// The algorithm is another than the endpoint's.
    WrongAlgorithm,
    /// The claims of a JWT are not those of the endpoint.
    WrongClaims,
}

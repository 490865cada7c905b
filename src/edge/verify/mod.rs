//! Whether a delivery was signed by the holder of a live key, and is fresh. Pure: no I/O, and `now` is a parameter.
//!
//! Every scheme works on the bytes as they came, accepts each header exactly once, and tries every live key in constant time.
//! What is wrong goes to the audit log; the caller only learns that it was refused.

use http::{HeaderMap, Method, Uri};
use jiff::{SignedDuration, Timestamp};

use super::keys::Key;

/// A delivery as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The method.
    pub method: &'a Method,
    /// The request target: path and query as received.
    pub uri: &'a Uri,
    /// Host and port that the caller meant (`Host` or `:authority`).
    pub authority: &'a str,
    /// The URL as callers know it, where the endpoint has one.
    pub external_url: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body, whole.
    pub body: &'a [u8],
}

/// How far a signed timestamp may be from the clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// How old it may be.
    pub past: SignedDuration,
    /// How far ahead it may be.
    pub future: SignedDuration,
}

/// A delivery that a live key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// ID of the key.
    pub key_id: String,
    /// ID of the delivery, whether signed or not: for people and for the audit log.
    pub delivery_id: Option<String>,
    /// When it was signed, where the scheme signs that.
    pub signed_at: Option<Timestamp>,
    /// What makes it the same delivery when it comes again: SHA-256 of the signed ID, or of everything that is signed.
    pub identity: [u8; 32],
}

/// Why a delivery was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
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

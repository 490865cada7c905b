//! A compact JWT, read strictly: its key fixes the algorithm, and nothing in it says where keys are.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::key_set::KeySet;
use crate::edge::encoding::base64url;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a compact JWT, or has an extension that must be understood.
    Malformed,
    /// Its algorithm is none of those that are accepted.
    WrongAlgorithm,
    /// A claim is missing or has a value that is not accepted.
    WrongClaims,
    /// It is not valid any more.
    Expired,
    /// It is not valid yet.
    NotYetValid,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Extensions that must be understood (RFC 7515 section 4.1.11); none is.
    crit: Option<IgnoredAny>,
}

/// A token whose parts could be read. Nothing that it says is to be believed before [`UnverifiedToken::is_signed_by`].
pub struct UnverifiedToken<'a> {
    header: Header,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> UnverifiedToken<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] and [`TokenError::WrongAlgorithm`].
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |text| base64url(text).ok_or(TokenError::Malformed);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        if !["ES256", "EdDSA", "RS256", "PS256"].contains(&header.alg.as_str()) {
            return Err(TokenError::WrongAlgorithm);
        }
        Ok(Self { header, signed, payload, signature })
    }

    /// Whether a key of this set has signed it.
    #[must_use]
    pub fn is_signed_by(&self, keys: &KeySet) -> bool {
        keys.verifies(self.algorithm(), self.key_id(), self.signed.as_bytes(), &self.signature)
    }

    /// How many keys of this set it is tried with: each costs a verification.
    #[must_use]
    pub fn candidates(&self, keys: &KeySet) -> usize {
        keys.candidates(self.algorithm(), self.key_id())
    }

    /// The algorithm that it names.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.header.alg
    }

    /// The ID of its key, if it names one.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Its type in lower case, without the prefix that may be left out (RFC 7515 section 4.1.9).
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        let media_type = self.header.typ.as_ref()?.to_ascii_lowercase();
        Some(media_type.strip_prefix("application/").map(ToOwned::to_owned).unwrap_or(media_type))
    }

    /// Claims of it. A claim that is there twice is an error if `T` has it.
    ///
    /// # Errors
    /// [`TokenError::WrongClaims`].
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, TokenError> {
        serde_json::from_slice(&self.payload).map_err(|_| TokenError::WrongClaims)
    }
}

/// When a token is valid: seconds since 1970.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Times {
    iat: i64,
    /// When it ends; at that moment it already has.
    pub exp: i64,
    nbf: Option<i64>,
}

impl Times {
    /// The time at which the token was issued, if it is valid now and was not made for longer than `lifetime`. `ahead` is how far the
    /// clock of its issuer may be ahead.
    ///
    /// # Errors
    /// Why it is not valid now.
    pub fn check(
        &self,
        lifetime: SignedDuration,
        ahead: SignedDuration,
        now: Timestamp,
    ) -> Result<Timestamp, TokenError> {
        if !self.exp.checked_sub(self.iat).is_some_and(|life| (1..=lifetime.as_secs()).contains(&life)) {
            return Err(TokenError::WrongClaims);
        }
        if now >= from_seconds(self.exp)? {
            return Err(TokenError::Expired);
        }
        let issued_at = from_seconds(self.iat)?;
        let begins_at = self.nbf.map_or(Ok(issued_at), from_seconds)?;
        if issued_at.max(begins_at).duration_since(now) > ahead {
            return Err(TokenError::NotYetValid);
        }
        Ok(issued_at)
    }
}

/// The time so many seconds after 1970. A time that is out of range is not reached yet, or long past.
fn from_seconds(seconds: i64) -> Result<Timestamp, TokenError> {
    let out_of_range = if seconds > 0 { TokenError::NotYetValid } else { TokenError::Expired };
    Timestamp::from_second(seconds).map_err(|_| out_of_range)
}

/// Whom a token is for: one audience, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Audience {
    /// Whether it is for an audience.
    #[must_use]
    pub fn is_for(&self, is_wanted: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::One(one) => is_wanted(one),
            Self::Several(several) => several.iter().any(|one| is_wanted(one)),
        }
    }
}

//! The keys that deliveries are verified with.

use std::fmt;

use jiff::Timestamp;

use super::error::VerifyError;
use super::verifier::Verifier;
use crate::domain::key_set::is_within;

/// One key of a webhook. It cannot be printed.
pub struct Key {
    /// Its ID, as the audit log and the status name it.
    pub id: String,
    /// When it becomes valid.
    pub not_before: Option<Timestamp>,
    /// When it stops being valid; at that moment it already is not.
    pub not_after: Option<Timestamp>,
    /// What verifies signatures.
    pub verifier: Verifier,
}

impl Key {
    /// Whether the key is valid now.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        is_within(self.not_before, self.not_after, now)
    }
}

/// The live key that has signed. All are tried, so that the time taken does not reveal which one it was.
///
/// # Errors
/// When no key is live, or none of them has signed.
pub fn signer(keys: &[Key], now: Timestamp, has_signed: impl Fn(&Key) -> bool) -> Result<&Key, VerifyError> {
    let mut live = keys.iter().filter(|key| key.is_live(now)).peekable();
    live.peek().ok_or(VerifyError::NoKey)?;
    let signer = live.fold(None, |found, key| if has_signed(key) { Some(key) } else { found });
    signer.ok_or(VerifyError::WrongSignature)
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

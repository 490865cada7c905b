//! Keys that deliveries are verified with.

use std::fmt;

use jiff::Timestamp;

use super::route::Invalid;
use super::verify::{Material, Refusal};
use crate::contract::route::KeyDocument;

/// One key of an endpoint.
pub struct Key {
    /// Its ID, as the audit log and the status name it.
    pub id: String,
    /// From when on it is accepted.
    pub not_before: Option<Timestamp>,
    /// Until when it is accepted; the moment itself is too late.
    pub not_after: Option<Timestamp>,
    /// What verifies.
    pub material: Material,
}

impl Key {
    /// Whether the key is accepted now.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|begin| begin <= now) && self.not_after.is_none_or(|end| now < end)
    }
}

/// Reads keys, each by `parse`.
///
/// # Errors
/// Names the key that cannot be used, and says what to write instead.
pub fn compile(
    documents: &[KeyDocument],
    parse: impl Fn(&[u8]) -> Result<Material, String>,
) -> Result<Vec<Key>, Invalid> {
    let compile = |KeyDocument { id, material, not_before, not_after }: &KeyDocument| {
        let material =
            parse(material.expose().as_bytes()).map_err(|why| Invalid::Keys(format!("the key {id}: {why}")))?;
        Ok(Key { id: id.clone(), not_before: *not_before, not_after: *not_after, material })
    };
    documents.iter().map(compile).collect()
}

/// The live key that has signed. All are tried, so that the time it takes does not tell which one it was.
///
/// # Errors
/// When no key is live, or none of them has.
pub fn signer(keys: &[Key], now: Timestamp, has_signed: impl Fn(&Key) -> bool) -> Result<&Key, Refusal> {
    let mut live = keys.iter().filter(|key| key.is_live(now)).peekable();
    live.peek().ok_or(Refusal::NoKey)?;
    let signer = live.fold(None, |found, key| if has_signed(key) { Some(key) } else { found });
    signer.ok_or(Refusal::WrongSignature)
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

//! Keys that deliveries are verified with.

use std::fmt;

use jiff::Timestamp;

use super::verify::Material;

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

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

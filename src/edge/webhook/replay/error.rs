//! Why a delivery cannot be reserved.

/// Why a delivery could not be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveError {
    /// It was delivered before, or is being delivered.
    Replayed,
    /// The store cannot say.
    Unavailable,
    /// The namespace has used up its share of the store.
    ShareExhausted,
    /// The store forgets deliveries early.
    Evicts,
}

//! Why a delivery cannot be reserved.

/// Why a delivery could not be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveError {
    /// It was delivered before.
    Replayed,
    /// Another attempt has it, and whether that one reaches the target is not known yet.
    InProgress,
    /// The store cannot say.
    Unavailable,
    /// The namespace has used up its share of the store.
    ShareExhausted,
    /// The store forgets deliveries early.
    Evicts,
}

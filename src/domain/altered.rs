//! Who else has changed an object that the operator wrote.

use thiserror::Error;

/// The writer that changed an object of ours, as far as the API server records it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AlteredBy {
    /// The field manager that owns a field that we wrote.
    #[error("{0}")]
    Manager(String),
    /// A writer that removed a field that we wrote. The API server does not record who removes a field.
    #[error("a writer that removed a field of it")]
    RemovedField,
    /// A writer that changed or removed our annotations in such a way that they cannot be read.
    #[error("a writer that changed its annotations")]
    Annotations,
}

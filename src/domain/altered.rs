//! The writer that altered a managed object.

use thiserror::Error;

/// The writer that altered a managed object, as far as the API server records it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AlteredBy {
    /// The field manager that owns a field that we wrote.
    #[error("{0}")]
    Manager(String),
    /// A writer that removed a field that we wrote. The API server does not record its name.
    #[error("a writer that removed a field of it")]
    RemovedField,
    /// A writer that changed our annotations, so that they cannot be read.
    #[error("a writer that changed its annotations")]
    Annotations,
}

//! A field of a spec whose value cannot be used.

use thiserror::Error;

/// A field of a spec whose value cannot be used, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// The field, as a path in the spec: `target.service.timeout`.
    pub field: String,
    /// Why the value cannot be used, and what to write instead.
    pub message: String,
}

impl InvalidField {
    /// An invalid field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same field, as a part of another one.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        Self { field: format!("{parent}.{}", self.field), message: self.message }
    }
}

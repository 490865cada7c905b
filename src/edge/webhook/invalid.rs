//! Why a route document cannot be served.

use thiserror::Error;

use super::keys::InvalidKeys;
use crate::domain::invalid_field::InvalidField;

/// Why a route document cannot be served, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRoute {
    /// A field of the spec has a value that cannot be used.
    #[error(transparent)]
    Spec(#[from] InvalidField),
    /// A key cannot be used.
    #[error(transparent)]
    Keys(#[from] InvalidKeys),
}

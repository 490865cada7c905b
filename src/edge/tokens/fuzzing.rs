//! Readers of what clients send, since fuzzing whole requests reaches little of them.

pub use super::request::{SubjectToken, TokenRequest};
pub use super::subject::{Subject, SubjectIssuer, verify};
pub use crate::contract::tokens::{CallerDocument, SubjectIssuerDocument, SubjectKeysDocument, TenantDocument};

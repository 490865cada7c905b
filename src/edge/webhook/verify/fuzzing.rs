//! Parts of verification on their own, since fuzzing whole deliveries reaches little of them.

use http::HeaderMap;

use super::error::VerifyError;
use super::header;

pub use super::http_signatures::fuzzing::{Covered, bases};

/// See `header::optional`.
///
/// # Errors
/// Why the header is refused.
pub fn optional<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, VerifyError> {
    header::optional(headers, name)
}

/// See `header::required`.
///
/// # Errors
/// Why the header is refused.
pub fn required<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, VerifyError> {
    header::required(headers, name)
}

/// See `header::optional_id`.
///
/// # Errors
/// Why the header is refused.
pub fn optional_id(headers: &HeaderMap, name: &str) -> Result<Option<String>, VerifyError> {
    header::optional_id(headers, name)
}

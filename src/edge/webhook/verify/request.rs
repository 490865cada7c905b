//! The request that is verified.

use http::{HeaderMap, Method, Uri};

/// A request with what signatures may cover.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The request target: path and query as received.
    pub uri: &'a Uri,
    /// Host and port that the caller meant (`Host` or `:authority`).
    pub authority: &'a str,
    /// The URL as callers know it, where the endpoint has one.
    pub external_url: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The body, whole.
    pub body: &'a [u8],
}

//! A request that was read as a whole.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

use super::route::Route;

/// A request that was read as a whole.
pub struct Received<'a> {
    /// Its head.
    pub parts: &'a Parts,
    /// The webhook, as `namespace/name`.
    pub endpoint: Arc<str>,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// The body.
    pub body: Bytes,
}

impl Received<'_> {
    /// The headers that the route forwards.
    #[must_use]
    pub fn forwarded(&self, route: &Route) -> HeaderMap {
        let mut kept = HeaderMap::new();
        for name in &route.forward {
            for value in self.parts.headers.get_all(name) {
                kept.append(name, value.clone());
            }
        }
        kept
    }
}

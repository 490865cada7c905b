//! A request that was read as a whole.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;

use super::route::Route;

/// A request that was read as a whole.
pub struct Received {
    /// Its head.
    pub parts: Arc<Parts>,
    /// The webhook, as `namespace/name`.
    pub endpoint: Arc<str>,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// The body.
    pub body: Bytes,
}

impl Received {
    /// A request with its body, which is hashed.
    #[must_use]
    pub fn new(parts: Arc<Parts>, endpoint: Arc<str>, body: Bytes) -> Self {
        let mut body_sha256 = [0; 32];
        body_sha256.copy_from_slice(digest(&SHA256, &body).as_ref());
        Self { parts, endpoint, body_sha256, body }
    }

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

//! A delivery, as targets get it.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::edge::webhook::replay::Identity;

/// A delivery, as targets get it.
pub struct Delivery {
    /// Headers of the caller that are forwarded.
    pub headers: HeaderMap,
    /// Its identity, by which a replay is recognized.
    pub identity: Identity,
    /// The endpoint, as `namespace/name`.
    pub endpoint: Arc<str>,
    /// ID of the delivery.
    pub id: String,
    /// The signed assertion.
    pub assertion: String,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// The body, unchanged.
    pub body: Bytes,
}

//! A delivery, as targets get it.

use bytes::Bytes;
use http::HeaderMap;

use crate::edge::webhook::replay::Identity;

/// A delivery, as targets get it.
pub struct Delivery {
    /// Headers of the caller that may travel on.
    pub headers: HeaderMap,
    /// What makes the delivery the same when it comes again.
    pub identity: Identity,
    /// The endpoint, as `namespace/name`.
    pub endpoint: String,
    /// ID of the delivery.
    pub id: String,
    /// What the edge knows of it, signed.
    pub assertion: String,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// The body as it came.
    pub body: Bytes,
}

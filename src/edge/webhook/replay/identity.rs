//! What makes a delivery the same when it is sent again.

use aws_lc_rs::digest::{SHA256, digest};

use crate::contract::route::WebhookReference;

/// What makes a delivery the same when it is sent again: a SHA-256.
pub type Identity = [u8; 32];

/// The identity of a delivery: what identifies it within its webhook, and the webhook.
#[must_use]
pub fn identity(webhook: &WebhookReference, within: &[u8]) -> Identity {
    let text = [webhook.uid.as_bytes(), b"\0", within].concat();
    let mut identity = [0; 32];
    identity.copy_from_slice(digest(&SHA256, &text).as_ref());
    identity
}

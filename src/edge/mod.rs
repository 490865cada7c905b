//! The data plane of webhooks: what the edge does with a delivery, from the socket to the target. Configured by what the
//! operator has compiled for it, and by nothing else.

pub mod keys;
pub mod verify;

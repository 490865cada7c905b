//! The controllers: what they share, what wakes them, and how they start and stop.

pub mod broker_connection;
mod context;
mod gate;
mod material;
pub mod rotation_policy;
pub mod service_identity;
mod start;
pub mod topic_policy;
pub mod trust_domain;
mod wiring;

use std::time::Duration;

use jiff::Timestamp;

pub use context::{Context, Settings};
pub use start::run;

/// How long until `then`, but ten minutes at most: the clock may be set while somebody waits.
fn wait(now: Timestamp, then: Timestamp) -> Duration {
    let left = u64::try_from(then.duration_since(now).as_secs()).unwrap_or(0);
    Duration::from_secs(left.clamp(1, 600))
}

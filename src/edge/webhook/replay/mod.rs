//! Replay protection. A delivery is reserved in the delivery history after it was verified and before it goes to its target. The
//! reservation is confirmed when the target has accepted the delivery, and released when not, so that the sender's next attempt is
//! not refused.

mod error;
mod eviction;
mod history;
mod idempotency_key;
mod identity;
mod memory;
mod redis;

pub use error::ReserveError;
pub use history::DeliveryHistory;
pub use idempotency_key::KeyPointer;
pub use identity::{Identity, identity};
pub use memory::max_deliveries;
#[cfg(fuzzing)]
pub use redis::replies as redis_replies;
pub use redis::{InvalidRedisUrl, Redis};

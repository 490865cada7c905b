//! HTTP behind the front, for every service that speaks it: strict framing, limits of heads, streams and bodies, the authority
//! check, source policies and rates. It knows no webhooks.
//!
//! ```text
//! front::Connection ─▶ Http (framing ─▶ HTTP/1.1 or HTTP/2) ─▶ Service::call
//! ```

pub mod body;
mod caller;
mod connection;
mod finish;
pub mod framing;
pub mod head;
pub mod rate;
mod service;
pub mod source;
#[cfg(test)]
mod tests;
pub mod unassigned;

pub use caller::Caller;
pub use connection::Http;
pub use finish::Finish;
pub use service::{RequestError, Service};

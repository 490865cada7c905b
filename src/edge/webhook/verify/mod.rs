//! Whether a delivery was signed by the holder of a live key, and is fresh. Pure: no I/O, and `now` is a parameter.
//!
//! Every scheme works on the bytes as they were received, accepts each header exactly once, and tries every live key in constant
//! time. Why a delivery is refused goes to the audit log; the caller learns only that it was refused.

pub(super) mod bearer;
mod check;
mod error;
mod form;
#[cfg(fuzzing)]
pub mod fuzzing;
mod github;
mod gitlab;
mod hash;
pub(super) mod header;
mod hmac;
mod http_signatures;
mod jwt;
pub mod keys;
mod request;
mod scheme;
mod shopify;
mod slack;
mod standard_webhooks;
mod stripe;
mod target;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod timestamp;
mod twilio;
mod verifier;

pub use check::Verified;
pub use error::{InvalidKey, VerifyError};
pub use request::SignedRequest;
pub use scheme::Scheme;
pub use timestamp::Window;
pub use verifier::Verifier;

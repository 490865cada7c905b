//! The webhook gateway: it receives deliveries from outside, verifies them and hands them to their target; and it signs what services
//! of the cluster send, and brings it to its destination. It is configured by the routes that the operator compiles for it, and
//! by nothing else.
//!
//! ```text
//! handle: route ─▶ source ─▶ rate ─▶ caller token ─▶ body ─┬─▶ inbound: verify ─▶ reserve ─▶ deliver ─────┬─▶ audit
//!                                                          └─▶ outbound: sign ─▶ deliver ─▶ dead letter ─┘
//! ```

mod assertion;
pub mod audit;
pub mod caller_token;
mod deliver;
mod gateway;
mod handle;
mod inbound;
pub mod invalid;
pub mod keys;
mod metrics;
mod outbound;
pub mod outcome;
mod received;
mod replay;
pub mod route;
pub mod routing;
pub mod run;
pub mod signing;
pub mod source;
mod table;
mod tidy;
pub mod verify;
mod watch;

pub use metrics::Metrics;
#[cfg(fuzzing)]
pub use replay::redis_replies;

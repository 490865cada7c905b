//! The issuer of access tokens (RFC 9068): a service proves itself with its SVID over mutual TLS, and gets a token for one other
//! service, with the scopes that both sides name. Services verify tokens with the keys that the issuer publishes.
//!
//! ```text
//! POST /token ─▶ login (SVID) ─▶ request (form) ─▶ calls (who may call whom) ─▶ subject (for whom) ─▶ issuer (signs) ─▶ audit line, answer
//! GET /jwks.json, /bundle.json, /.well-known/… ─▶ issuer (documents)
//! ```
//!
//! One process serves every trust domain that issues tokens. The host that a request is for says which one it means.

mod answer;
mod audit;
mod bundle;
mod calls;
#[cfg(fuzzing)]
pub mod fuzzing;
mod issuer;
mod key_sets;
mod metrics;
mod outcome;
mod request;
pub mod run;
mod service;
mod subject;
mod watch;

pub use key_sets::Fetched;
pub use metrics::Metrics;
pub use subject::{InvalidSubjectIssuer, SubjectIssuer};

//! Credence: a Kubernetes operator that makes certificates, Secrets and broker ACLs from identities, rotation policies and
//! topic policies, and a webhook gateway that verifies inbound deliveries and signs outbound ones.
//!
//! ```text
//!   watch ──▶ store ──▶ observe ──▶ plan ──▶ apply ──▶ one status write
//!                       (reads)    (pure)   (writes)
//!
//!   api ◀── domain ◀── contract, issuers ◀── brokers, kubernetes ◀── edge ◀── controllers ◀── main
//! ```
//!
//! Modules import to the left only:
//!
//! - `api`: the custom resources, with schemas, validation rules and printer columns.
//! - `domain`: pure decisions; `now` is a parameter.
//! - `contract`: the data that the operator and the edge exchange.
//! - `issuers`: certificate authorities and certificates.
//! - `network`: connections, to addresses that a policy admits.
//! - `brokers`: sessions with brokers, ACLs, credentials of clients, and a producer.
//! - `kubernetes`: machinery for controllers that knows no kind.
//! - `edge`: the data plane, with the webhook gateway.
//! - `controllers`: one folder per kind: observe, plan, apply.
//! - `metrics`, `stalls`, `server`, `output`: metrics, steps of work that hold a thread, health over HTTP, and the threads that
//!   write the log and the audit log.

pub mod api;
pub(crate) mod brokers;
pub(crate) mod contract;
pub mod controllers;
pub mod domain;
pub mod edge;
pub(crate) mod issuers;
pub mod kubernetes;
pub mod metrics;
pub(crate) mod network;
pub mod output;
pub mod server;
mod stalls;

#[cfg(fuzzing)]
pub use brokers::kafka::fuzzing as kafka_answers;
#[cfg(fuzzing)]
pub use issuers::pem as certificates;

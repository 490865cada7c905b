//! Credence: a Kubernetes operator that makes certificates, Secrets and broker ACLs from identities, rotation policies and
//! topic policies, and a webhook gateway that verifies deliveries.
//!
//! ```text
//!   watch ──▶ store ──▶ observe ──▶ plan ──▶ apply ──▶ one status write
//!                       (reads)    (pure)   (writes)
//!
//!   api ◀── domain ◀── issuers, brokers ◀── kubernetes ◀── edge ◀── controllers ◀── main
//! ```
//!
//! Modules import to the left only.

/// The custom resources: schemas, validation rules and printer columns.
pub mod api;
/// Brokers: sessions, ACLs, credentials of clients, and a producer.
pub mod brokers;
/// What the operator and the edge agree on: route documents, reports, and the component label.
pub mod contract;
/// One folder per kind: observe, plan, apply.
pub mod controllers;
/// Pure decisions; `now` is a parameter.
pub mod domain;
/// The data plane: the webhook gateway.
pub mod edge;
/// Certificate authorities and certificates.
pub mod issuers;
/// Kubernetes machinery that knows no kind: watches, stores, queues, ownership, status, events and errors.
pub mod kubernetes;
/// The metrics of the operator.
pub mod metrics;
/// Health, readiness and metrics over HTTP.
pub mod server;

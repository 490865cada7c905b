//! Credence: a Kubernetes operator that turns identities, rotation policies and topic policies into certificates, Secrets and
//! broker ACLs, and a webhook gateway that verifies inbound deliveries and signs outbound ones.
//!
//! ```text
//!   watch ──▶ store ──▶ observe ──▶ plan ──▶ apply ──▶ one status write
//!                       (reads)    (pure)   (writes)
//!
//!   api ◀── domain ◀── issuers ◀── brokers, kubernetes ◀── contract ◀── edge ◀── controllers ◀── main
//! ```
//!
//! Modules import to the left only.

/// The custom resources: schema, rules, columns.
pub mod api;
/// Brokers: the session with one, and what its clients are given.
pub mod brokers;
/// What the operator and the edge agree on: route documents, reports, and the component label.
pub mod contract;
/// One folder per kind: observe, plan, apply.
pub mod controllers;
/// Decisions: pure, and `now` is a parameter.
pub mod domain;
/// The data plane: front, HTTP, and the webhook gateway.
pub mod edge;
/// Authorities and certificates.
pub mod issuers;
/// What all controllers share: watches, ownership, status, events, errors, the loop.
pub mod kubernetes;
/// What can be measured.
pub mod metrics;
/// Health, readiness and metrics over HTTP.
pub mod server;

//! Attacks with the rights of a tenant: everything in one namespace, and nothing elsewhere. Each runs beside a victim, whose
//! success is asserted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod addresses;
mod anchors;
#[path = "../it/authority.rs"]
mod authority;
#[path = "../it/bed.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod bed;
#[path = "../it/calls.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod calls;
mod customer;
mod deletion;
mod failing;
mod groups;
#[path = "../it/hooks.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod hooks;
mod hostile_broker;
#[path = "../it/identity_provider.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod identity_provider;
mod kafka_peer;
mod memory;
mod names;
mod operator;
mod pools;
mod quoting;
mod records;
mod refusing_broker;
mod rights;
mod rotation;
mod secrets;
mod shares;
mod tenant;
mod tokens;

//! Attacks with the rights of a tenant: everything in one namespace, and nothing elsewhere. Each runs beside a victim, whose
//! success is asserted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod addresses;
#[path = "../it/bed.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod bed;
mod deletion;
mod groups;
#[path = "../it/hooks.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod hooks;
mod hostile_broker;
mod kafka_peer;
mod names;
mod operator;
mod records;
mod rights;
mod rotation;
mod secrets;
mod tenant;

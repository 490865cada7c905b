//! Faults on real parts, one at a time: each test breaks something that all other tests need.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod apiserver;
#[path = "../it/bed.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod bed;
mod broker;
#[path = "../it/calls.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod calls;
mod clock;
mod edge;
mod expected;
mod fairness;
mod gateway;
#[path = "../it/hooks.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod hooks;
mod issuers;
mod judges;
mod kills;
mod lost_answers;
mod manual_changes;
mod named;
mod operator;
mod proxy;
mod restored;
mod services;
mod turned_back;
mod upgrade;

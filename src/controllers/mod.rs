//! The controllers. Every kind has a folder of the same small files: `mod.rs` (what the registry has to know of the
//! kind), `controller.rs` (what the controller uses), `observe.rs` (reads stores), `plan.rs` (decides, has no client) and
//! `apply.rs` (writes). A folder of a kind knows no other, and nothing of the registry or of the table of wakes.

mod broker_connection;
mod registration;
mod registry;
mod rotation_policy;
mod service_identity;
mod settings;
mod shared;
mod start;
mod topic_policy;
mod trust_domain;
mod wakes;
mod watches;
mod webhook;

pub use settings::Settings;
pub use start::run;

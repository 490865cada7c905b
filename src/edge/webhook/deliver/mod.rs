//! Hands deliveries to their targets, with a limited number of attempts.

mod connections;
pub mod delivery;
pub mod destination;
pub mod kafka;
pub mod object;
pub mod retry;
pub mod service;
pub mod target;
pub mod targets;

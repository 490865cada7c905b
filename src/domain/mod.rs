//! Decisions. Everything here is pure: no client, no clock (`now` is a parameter), and no random numbers.

pub mod altered;
pub mod claims;
pub mod contention;
pub mod fence;
pub mod grants;
pub mod identity;
pub mod index;
pub mod invalid_field;
pub mod key_set;
pub mod name;
pub mod refusal;
pub mod rotation;
pub mod schedule;
pub mod secret;
pub mod selector;
pub mod text;

//! Decisions. Everything here is pure: no client, no clock (`now` is a parameter), and no random numbers.

pub mod address_policy;
pub(crate) mod altered;
pub(crate) mod calls;
pub(crate) mod claims;
pub(crate) mod contention;
pub(crate) mod defect;
pub mod fence;
pub(crate) mod grants;
pub(crate) mod identity;
pub(crate) mod in_effect;
pub(crate) mod index;
pub(crate) mod invalid_field;
pub(crate) mod jwk;
pub(crate) mod key_set;
pub(crate) mod name;
pub mod network;
pub(crate) mod refusal;
pub(crate) mod rotation;
pub(crate) mod schedule;
pub(crate) mod secret;
pub(crate) mod selector;
pub(crate) mod tenant_pattern;
pub(crate) mod text;
pub(crate) mod token_keys;

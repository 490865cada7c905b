//! What the controllers share. Nothing here knows a folder of a kind.

pub mod authorities;
pub mod claims;
pub mod gate;
pub mod handle;
pub mod kind;
pub mod material;
pub mod name_records;
pub mod namespaces;
pub mod origin;
pub mod parts;
pub mod replicas;
pub mod rotation_policies;
pub mod services;
pub mod signal;
pub mod sweep;
pub mod timing;
pub mod token_calls;
pub mod webhook;

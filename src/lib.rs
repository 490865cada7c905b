//! Credence.
#![allow(missing_docs)]
pub mod api;
pub mod domain;
pub mod issuers;

//! What the operator and the edge agree on: the route documents that the operator writes, the reports that the edge writes,
//! and the label that says what a written object is for. Data only; no I/O here.
//!
//! The forms in this module are stored. A field that is renamed or an entry that is moved makes what is stored unreadable, so
//! a change needs another [`FORMAT`](crate::contract::route::FORMAT) and a line in the CHANGELOG.

pub mod component;
pub mod report;
pub mod route;

pub use component::Component;

//! The contract between the operator and the edge: the route documents that the operator writes, the reports that the edge
//! writes, and the component label of managed objects. Data only; no I/O here.
//!
//! The formats in this module are stored. Renaming a field or moving an entry makes stored documents unreadable, so such a
//! change needs another [`FORMAT`](crate::contract::route::FORMAT) and a line in the CHANGELOG.

pub mod component;
pub mod report;
pub mod route;
pub mod tokens;

pub use component::Component;

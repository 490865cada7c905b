//! A Kubernetes object as a target. It is created with the rights of a `ServiceAccount` of the endpoint's namespace; the edge
//! itself has no right to create anything.

mod create;
mod error;
mod target;
mod template;
mod token;

pub use create::Objects;
pub use target::Object;
pub use template::MAX_BODY;

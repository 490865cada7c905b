//! The custom resources of Credence: schema, validation rules and printed columns. No I/O here.
//!
//! Mistakes that are visible in one object alone are refused by the API server, through the CEL rules declared here.
//! Everything that needs a second object is decided in [`crate::domain`].

mod broker_connection;
mod common;
mod conditions;
mod crds;
mod kind;
mod object_template;
mod rotation_policy;
mod service_identity;
mod subject_issuer;
mod tokens;
mod topic_policy;
mod trust_domain;
mod webhook;
mod webhook_destination;
mod webhook_endpoint;
mod webhook_target;
mod webhook_verification;

pub use broker_connection::*;
pub use common::*;
pub use conditions::*;
pub use crds::crds;
pub use kind::{Kind, KindName, Status};
pub use object_template::ObjectTemplate;
pub use rotation_policy::*;
pub use service_identity::*;
pub use subject_issuer::*;
pub use tokens::*;
pub use topic_policy::*;
pub use trust_domain::*;
pub use webhook::*;
pub use webhook_destination::*;
pub use webhook_endpoint::*;
pub use webhook_target::*;
pub use webhook_verification::*;

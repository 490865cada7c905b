//! The custom resources of Credence: schema, validation rules and printed columns. No I/O here.
//!
//! Mistakes that are visible in one object alone are refused by the API server, through the CEL rules declared here.
//! Everything that needs a second object is decided in [`crate::domain`].

mod broker_connection;
mod conditions;
mod crds;
mod kind;
mod rotation_policy;
mod service_identity;
mod topic_policy;
mod trust_domain;
mod webhook;
mod webhook_destination;
mod webhook_endpoint;
mod webhook_target;
mod webhook_verification;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

pub use broker_connection::*;
pub use conditions::*;
pub use crds::crds;
pub use kind::{Kind, KindName, Status};
pub use rotation_policy::*;
pub use service_identity::*;
pub use topic_policy::*;
pub use trust_domain::*;
pub use webhook::*;
pub use webhook_destination::*;
pub use webhook_endpoint::*;
pub use webhook_target::*;
pub use webhook_verification::*;

/// The API group of every kind.
pub const GROUP: &str = "credence.dev";

/// A Secret in the namespace of the operator.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct SecretReference {
    /// Name of the Secret, in the namespace that the operator runs in. Cluster-scoped objects never refer to Secrets of
    /// other namespaces.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The environment of an object, such as `production`: objects of different environments never refer to each other.
pub type Environment = String;

/// Which namespaces a rule applies to.
///
/// `{}` selects every namespace.
pub type NamespaceSelector = LabelSelector;

//! Types that several kinds use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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

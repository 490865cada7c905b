//! How the operator was started.

use std::time::Duration;

use crate::kubernetes::scope::NamespaceScope;

/// The settings that controllers depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace that the operator runs in; Secrets of cluster-wide objects are there.
    pub namespace: String,
    /// The namespaces that it works in.
    pub scope: NamespaceScope,
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
    /// Namespace of the edge; `None` when there is none.
    pub edge_namespace: Option<String>,
    /// How often a broker is compared with what was applied.
    pub broker_resync: Duration,
    /// For how long a policy has to be absent until its rights are revoked.
    pub absent_policies_after: Duration,
}

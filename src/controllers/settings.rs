//! How the operator was started.

use std::net::IpAddr;
use std::time::Duration;

use crate::domain::address_policy::AddressPolicy;
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
    /// Address at which the edge reaches every Service instead of its own.
    pub service_address: Option<IpAddr>,
    /// Port of `/metrics`, which no target may have at that address.
    pub own_port: u16,
    /// Namespace of the edge; `None` when there is none.
    pub edge_namespace: Option<String>,
    /// Namespace of the token issuer; `None` when there is none.
    pub tokens_namespace: Option<String>,
    /// Which addresses brokers may have.
    pub broker_addresses: AddressPolicy,
    /// How often a broker is compared with what was applied.
    pub broker_resync: Duration,
    /// For how long a policy has to be absent until its rights are revoked.
    pub absent_policies_after: Duration,
}

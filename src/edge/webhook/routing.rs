//! How the gateway reaches Services and destinations.

use std::net::IpAddr;

use super::address_policy::AddressPolicy;

/// How the gateway reaches Services and destinations.
#[derive(Clone, Debug)]
pub struct RoutingConfig {
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
    /// Address at which every Service is reached instead of its name, in a cluster without a network.
    pub service_address: Option<IpAddr>,
    /// Where destinations may be.
    pub destinations: AddressPolicy,
}

//! How the gateway reaches Services, destinations and brokers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use crate::domain::address_policy::AddressPolicy;
use crate::domain::network::{InvalidNetwork, Network};

/// How the gateway reaches Services, destinations and brokers.
#[derive(Clone, Debug)]
pub struct RoutingConfig {
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
    /// Address at which every Service is reached instead of its own, in a cluster without a network.
    pub service_address: Option<IpAddr>,
    /// Ports at that address that are Credence's own.
    pub own_ports: Vec<u16>,
    /// Where destinations may be.
    pub destinations: AllowedDestinations,
    /// Where brokers may be.
    pub brokers: AddressPolicy,
}

/// A network that destinations may be in although it is not on the Internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedDestination {
    /// The namespace whose destinations may be in it; `None` for all.
    pub namespace: Option<String>,
    /// The network.
    pub network: Network,
}

impl FromStr for AllowedDestination {
    type Err = InvalidNetwork;

    /// Reads `10.1.0.0/16`, or `shop=10.1.0.0/16` for the namespace `shop`.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (namespace, network) = text.split_once('=').map_or((None, text), |(name, network)| (Some(name), network));
        Ok(Self { namespace: namespace.map(ToOwned::to_owned), network: network.parse()? })
    }
}

/// Where destinations may be besides the Internet.
#[derive(Clone, Debug, Default)]
pub struct AllowedDestinations(BTreeMap<Option<String>, Vec<Network>>);

impl FromIterator<AllowedDestination> for AllowedDestinations {
    fn from_iter<I: IntoIterator<Item = AllowedDestination>>(allowed: I) -> Self {
        let mut networks: BTreeMap<Option<String>, Vec<Network>> = BTreeMap::new();
        for AllowedDestination { namespace, network } in allowed {
            networks.entry(namespace).or_default().push(network);
        }
        Self(networks)
    }
}

impl AllowedDestinations {
    /// The policy for destinations of a namespace.
    #[must_use]
    pub fn of(&self, namespace: &str) -> AddressPolicy {
        let of = |namespace: Option<&str>| self.0.get(&namespace.map(ToOwned::to_owned)).into_iter().flatten().copied();
        AddressPolicy::public(of(None).chain(of(Some(namespace))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_allowed_to_all_namespaces_or_to_one() {
        let allowed = ["10.1.0.0/16", "shop=10.2.0.0/16", "shop=10.3.0.0/16"].map(|it| it.parse().unwrap());
        let allowed: AllowedDestinations = allowed.into_iter().collect();
        for (namespace, address, admitted) in [
            ("shop", "10.1.0.1", true),
            ("shop", "10.2.0.1", true),
            ("shop", "10.3.0.1", true),
            ("shop", "10.4.0.1", false),
            ("evil", "10.1.0.1", true),
            ("evil", "10.2.0.1", false),
            ("", "10.2.0.1", false),
        ] {
            let judged = allowed.of(namespace).judge(address.parse().unwrap());
            assert_eq!(judged.is_ok(), admitted, "{namespace} {address}");
        }
        for wrong in ["shop=", "shop", "=10.1.0.0", "shop=10.1.0.0/33"] {
            assert!(wrong.parse::<AllowedDestination>().is_err(), "{wrong}");
        }
    }
}

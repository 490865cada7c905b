//! Which addresses may be connected to. Names prove nothing: anybody who may create a Service can point its name anywhere, as
//! with `ExternalName`, and the owner of a domain can point it into the cluster. So addresses are checked when a connection is
//! made, and the connection goes to the address that was checked.

use std::future::{Future, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

use crate::edge::network::Network;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Networks in IPv4 or in the global unicast space of IPv6 (`2000::/3`) that are not on the Internet, or that are translated to any
/// address: the special-purpose registries of IANA (RFC 6890), and multicast.
const SPECIAL: [&str; 20] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "64:ff9b::/96",
];
static NOT_PUBLIC: LazyLock<Vec<Network>> =
    LazyLock::new(|| SPECIAL.iter().filter_map(|network| network.parse().ok()).collect());

/// Which addresses may be connected to.
#[derive(Clone, Debug)]
pub enum AddressPolicy {
    /// Addresses of Services: all but those of the edge's own machine and link-local ones, such as the metadata server of a
    /// cloud.
    Services,
    /// Addresses on the Internet, and in these networks.
    Public(Arc<[Network]>),
}

impl AddressPolicy {
    /// Whether the address may be connected to.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        match self {
            Self::Services => !is_near(address.to_canonical()),
            Self::Public(allowed) => {
                allowed.iter().any(|network| network.contains(address)) || is_public(address.to_canonical())
            }
        }
    }

    fn refused(&self) -> io::Error {
        let why = match self {
            Self::Services => "the name resolves to no address that a Service may have",
            Self::Public(_) => "the host has no address that destinations may have",
        };
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    }
}

fn is_near(address: IpAddr) -> bool {
    let shared = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    match address {
        IpAddr::V4(address) => shared || address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => shared || address.is_unicast_link_local(),
    }
}

fn is_public(address: IpAddr) -> bool {
    let assigned = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
    };
    assigned && !NOT_PUBLIC.iter().any(|network| network.contains(address))
}

/// Resolves names by the system's resolver, and keeps the addresses that may be connected to.
#[derive(Clone)]
pub struct PolicyResolver {
    system: GaiResolver,
    policy: AddressPolicy,
}

impl Service<Name> for PolicyResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, policy) = (self.system.call(name), self.policy.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = resolving.await?.filter(|address| policy.admits(address.ip())).collect();
            if found.is_empty() { Err(policy.refused()) } else { Ok(found.into_iter()) }
        })
    }
}

/// Connects by name, over TCP.
#[must_use]
pub fn connector(policy: AddressPolicy) -> HttpConnector<PolicyResolver> {
    let mut connector = HttpConnector::new_with_resolver(PolicyResolver { system: GaiResolver::new(), policy });
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}

/// Connects by name or by address, over TCP. An address in a URL is not resolved, and checked here.
#[derive(Clone)]
pub struct PolicyConnector {
    policy: AddressPolicy,
    inner: HttpConnector<PolicyResolver>,
}

impl PolicyConnector {
    /// A connector with this policy.
    #[must_use]
    pub fn new(policy: AddressPolicy) -> Self {
        Self { inner: connector(policy.clone()), policy }
    }
}

type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

impl Service<Uri> for PolicyConnector {
    type Response = <HttpConnector<PolicyResolver> as Service<Uri>>::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse().is_ok_and(|address| !self.policy.admits(address)) {
            return Box::pin(ready(Err(self.policy.refused().into())));
        }
        let connecting = self.inner.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(policy: &AddressPolicy, address: &str) -> bool {
        policy.admits(address.parse().unwrap())
    }

    #[test]
    fn a_service_is_neither_this_machine_nor_the_metadata_of_a_cloud() {
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!admits(&AddressPolicy::Services, refused), "{refused}");
        }
        for taken in ["10.96.0.1", "192.168.7.7", "203.0.113.9", "fd00::1", "2001:db8::1"] {
            assert!(admits(&AddressPolicy::Services, taken), "{taken}");
        }
    }

    #[test]
    fn a_destination_is_on_the_internet_or_in_a_network_that_is_allowed() {
        assert_eq!(NOT_PUBLIC.len(), SPECIAL.len());
        let public = AddressPolicy::Public(Arc::from([]));
        for refused in [
            "127.0.0.1",
            "10.96.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "198.19.0.1",
            "192.0.0.192",
            "240.0.0.1",
            "255.255.255.255",
            "224.0.0.251",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "4000::1",
        ] {
            assert!(!admits(&public, refused), "{refused}");
        }
        for taken in ["1.1.1.1", "172.32.0.1", "192.0.1.1", "100.128.0.1", "2606:4700::1", "2a00:1450::1"] {
            assert!(admits(&public, taken), "{taken}");
        }
        let allowed = AddressPolicy::Public(Arc::from(["10.1.0.0/16".parse().unwrap()]));
        assert!(admits(&allowed, "10.1.2.3") && admits(&allowed, "::ffff:10.1.2.3") && admits(&allowed, "1.1.1.1"));
        assert!(!admits(&allowed, "10.2.0.1") && !admits(&allowed, "127.0.0.1"));
    }

    #[tokio::test]
    async fn what_leads_here_is_refused_connector_and_by_address() {
        let resolver = connector(AddressPolicy::Services).call("http://localhost:1/".parse().unwrap()).await;
        assert!(format!("{:?}", resolver.err()).contains("PermissionDenied"));
        for url in ["https://localhost:1/", "https://127.0.0.1:1/", "https://[::1]:1/", "https://[::ffff:10.0.0.1]:1/"]
        {
            let refused = PolicyConnector::new(AddressPolicy::Public(Arc::from([]))).call(url.parse().unwrap()).await;
            assert!(format!("{:?}", refused.err()).contains("PermissionDenied"), "{url}");
        }
    }
}

//! Where connections may lead. Names are nobody's promise: whoever may make a Service can point its name anywhere, as with
//! `ExternalName`, and whoever owns a domain can point it into the cluster. So addresses are judged, when a connection is made,
//! and a connection goes to the address that was judged.

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

use super::network::Network;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// What is in the global unicast space of IPv6 (`2000::/3`) or in IPv4, and yet leads to no host of the Internet, or through a
/// translation to any address: the registries of special purpose of IANA (RFC 6890), and multicast.
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

/// Where connections may lead.
#[derive(Clone, Debug)]
pub enum Reach {
    /// To Services: anywhere but to the edge's own machine and to what answers on link-local addresses, such as the metadata
    /// of a cloud.
    Services,
    /// To hosts of the Internet, and into these networks.
    Public(Arc<[Network]>),
}

impl Reach {
    /// Whether a connection to an address may be made.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        match self {
            Self::Services => !is_near(address.to_canonical()),
            Self::Public(allowed) => {
                allowed.iter().any(|network| network.contains(address)) || is_public(address.to_canonical())
            }
        }
    }

    fn refusal(&self) -> io::Error {
        let why = match self {
            Self::Services => "the name leads to no address that a Service may have",
            Self::Public(_) => "the host is in no network that destinations may be in",
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

/// Resolves names by the system's resolver, and keeps what may be connected to.
#[derive(Clone)]
pub struct Resolver {
    system: GaiResolver,
    reach: Reach,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, reach) = (self.system.call(name), self.reach.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = resolving.await?.filter(|address| reach.admits(address.ip())).collect();
            if found.is_empty() { Err(reach.refusal()) } else { Ok(found.into_iter()) }
        })
    }
}

/// Connects by name, over TCP.
#[must_use]
pub fn by_name(reach: Reach) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(Resolver { system: GaiResolver::new(), reach });
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}

/// Connects by name or by address, over TCP: an address in a URL asks no resolver, and is judged here.
#[derive(Clone)]
pub struct Outside {
    reach: Reach,
    inner: HttpConnector<Resolver>,
}

impl Outside {
    /// Connects where it may.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self { inner: by_name(reach.clone()), reach }
    }
}

type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

impl Service<Uri> for Outside {
    type Response = <HttpConnector<Resolver> as Service<Uri>>::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        if host.parse().is_ok_and(|address| !self.reach.admits(address)) {
            return Box::pin(ready(Err(self.reach.refusal().into())));
        }
        let connecting = self.inner.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(reach: &Reach, address: &str) -> bool {
        reach.admits(address.parse().unwrap())
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
            assert!(!admits(&Reach::Services, refused), "{refused}");
        }
        for taken in ["10.96.0.1", "192.168.7.7", "203.0.113.9", "fd00::1", "2001:db8::1"] {
            assert!(admits(&Reach::Services, taken), "{taken}");
        }
    }

    #[test]
    fn a_destination_is_on_the_internet_or_in_a_network_that_is_allowed() {
        assert_eq!(NOT_PUBLIC.len(), SPECIAL.len());
        let public = Reach::Public(Arc::from([]));
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
        let allowed = Reach::Public(Arc::from(["10.1.0.0/16".parse().unwrap()]));
        assert!(admits(&allowed, "10.1.2.3") && admits(&allowed, "::ffff:10.1.2.3") && admits(&allowed, "1.1.1.1"));
        assert!(!admits(&allowed, "10.2.0.1") && !admits(&allowed, "127.0.0.1"));
    }

    #[tokio::test]
    async fn what_leads_here_is_refused_by_name_and_by_address() {
        let resolver = by_name(Reach::Services).call("http://localhost:1/".parse().unwrap()).await;
        assert!(format!("{:?}", resolver.err()).contains("PermissionDenied"));
        for url in ["https://localhost:1/", "https://127.0.0.1:1/", "https://[::1]:1/", "https://[::ffff:10.0.0.1]:1/"]
        {
            let refused = Outside::new(Reach::Public(Arc::from([]))).call(url.parse().unwrap()).await;
            assert!(format!("{:?}", refused.err()).contains("PermissionDenied"), "{url}");
        }
    }
}

//! Where names of Services may lead. Whoever may make a Service in a namespace can point its name anywhere, as with
//! `ExternalName`; it must not lead to the edge's own machine or to what answers on link-local addresses, such as the
//! metadata of a cloud.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// Resolves names by the system's resolver, and keeps what may be connected to.
#[derive(Clone)]
pub struct Resolver(GaiResolver);

impl Default for Resolver {
    fn default() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.0.call(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = resolving.await?.filter(|address| may_lead_to(address.ip())).collect();
            if found.is_empty() {
                let why = "the name leads to no address that a Service may have";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            Ok(found.into_iter())
        })
    }
}

fn may_lead_to(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !(address.is_loopback()
                || address.is_unspecified()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            !(address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(!may_lead_to(refused.parse().unwrap()), "{refused}");
        }
        for taken in ["10.96.0.1", "192.168.7.7", "203.0.113.9", "fd00::1", "2001:db8::1"] {
            assert!(may_lead_to(taken.parse().unwrap()), "{taken}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_here_is_refused() {
        let refused = Resolver::default().call("localhost".parse().unwrap()).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(io::ErrorKind::PermissionDenied));
    }
}

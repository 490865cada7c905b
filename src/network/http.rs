//! Connectors for clients of hyper, and whom their TLS trusts.

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
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tower::Service;

use super::{admitted, denied};
use crate::domain::address_policy::AddressPolicy;
use crate::domain::defect;
use crate::domain::invalid_field::InvalidField;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Resolves names by the system's resolver, and keeps the addresses that are admitted.
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
        Box::pin(async move { admitted(resolving.await?, &policy).map(IntoIterator::into_iter) })
    }
}

/// Connects by name, over TCP. An address in a URL is not resolved: whoever writes one judges it.
#[must_use]
pub fn connector(policy: AddressPolicy) -> HttpConnector<PolicyResolver> {
    let mut connector = HttpConnector::new_with_resolver(PolicyResolver { system: GaiResolver::new(), policy });
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}

/// Connects by name or by address, over TCP. An address in a URL is not resolved, and judged here.
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
        if let Some((address, why)) =
            host.parse::<IpAddr>().ok().and_then(|it| Some((it, self.policy.judge(it).err()?)))
        {
            return Box::pin(ready(Err(denied(address, why).into())));
        }
        let connecting = self.inner.call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

/// The certificate authorities of the public web.
#[must_use]
pub fn public_web() -> Arc<RootCertStore> {
    static ROOTS: LazyLock<Arc<RootCertStore>> =
        LazyLock::new(|| Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()));
    ROOTS.clone()
}

/// The certificate authorities of a field, in PEM.
///
/// # Errors
/// Says what is wrong with the field.
pub fn authorities(field: &'static str, pem: &str) -> Result<Arc<RootCertStore>, InvalidField> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let authority = authority.map_err(|error| InvalidField::new(field, defect::of_pem(&error)))?;
        let unusable =
            |error| InvalidField::new(field, format!("a certificate cannot be a root: {}", defect::of_tls(&error)));
        roots.add(authority).map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(InvalidField::new(field, "there is no certificate in it; write authorities in PEM"));
    }
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_leads_here_is_refused_by_name_and_by_address() {
        let policy = AddressPolicy::trusted(None);
        let resolver = connector(policy).call("http://localhost:1/".parse().unwrap()).await;
        assert!(format!("{:?}", resolver.err()).contains("PermissionDenied"));
        for url in ["https://localhost:1/", "https://127.0.0.1:1/", "https://[::1]:1/", "https://[::ffff:10.0.0.1]:1/"]
        {
            let refused = PolicyConnector::new(AddressPolicy::public(Vec::new())).call(url.parse().unwrap()).await;
            assert!(format!("{:?}", refused.err()).contains("PermissionDenied"), "{url}");
        }
    }
}

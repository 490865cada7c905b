//! TLS settings of the handshakes, and which sessions may be resumed.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::StoresServerSessions;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::connection::TlsStream;
use super::possession::Possession;
use super::serving::ServingCertificates;

/// The settings of the handshakes from now on; none until there is a certificate.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    certificates: Mutex<ServingCertificates>,
    config: ArcSwapOption<ServerConfig>,
}

impl Tls {
    /// Settings without a certificate.
    pub fn new() -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Self { provider, certificates: Mutex::default(), config: ArcSwapOption::empty() }
    }

    /// The cryptography of the handshakes.
    pub fn provider(&self) -> &CryptoProvider {
        &self.provider
    }

    /// Changes which certificates are shown. Sessions of former handshakes are not resumed.
    pub fn show(&self, alpn: &[&[u8]], change: impl FnOnce(&mut ServingCertificates)) -> Result<(), rustls::Error> {
        let mut certificates = self.certificates.lock();
        change(&mut certificates);
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(Possession::new(&self.provider)))
            .with_cert_resolver(Arc::new(certificates.clone()));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        self.config.store(Some(Arc::new(config)));
        Ok(())
    }

    /// Does the handshake of a connection.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream> {
        let config = self.config.load_full().ok_or(io::ErrorKind::NotConnected)?;
        TlsAcceptor::from(config).accept(stream).await
    }
}

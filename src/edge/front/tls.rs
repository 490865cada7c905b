//! TLS settings of the handshakes, and which sessions may be resumed.

use std::sync::Arc;
use std::{fmt, io};

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
        let sessions = Arc::new(NewSessions::new(config.session_storage.clone()));
        let mut config = ServerConfig::clone(&config);
        config.session_storage = sessions.clone();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        sessions.conclude(stream.get_ref().1.peer_certificates().is_none());
        Ok(stream)
    }
}

/// The sessions of one handshake. They can be resumed once they are kept: rustls does not say while it makes a session whether a
/// certificate was presented in it, and such a one must not be resumed, because its certificate may end before it.
struct NewSessions {
    kept: Arc<dyn StoresServerSessions>,
    made: Mutex<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl NewSessions {
    fn new(kept: Arc<dyn StoresServerSessions>) -> Self {
        Self { kept, made: Mutex::default() }
    }

    /// Keeps the sessions, or forgets them.
    fn conclude(&self, keep: bool) {
        for (key, session) in std::mem::take(&mut *self.made.lock()) {
            if keep {
                self.kept.put(key, session);
            }
        }
    }
}

impl fmt::Debug for NewSessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NewSessions(redacted)")
    }
}

impl StoresServerSessions for NewSessions {
    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        self.made.lock().push((key, session));
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

//! What the front hands to a protocol.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::client_certificate::ClientCertificate;
use super::lifetime::Lifetime;

/// A TCP connection after the TLS handshake.
pub type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// A connection within the limits. Who the peer is and what it may do is decided by the protocol.
pub struct Connection {
    /// The decrypted stream.
    pub stream: TlsStream,
    /// Address of the peer; an IPv4 address that came as IPv6 is written as IPv4.
    pub peer: IpAddr,
    /// When the connection must be closed.
    pub lifetime: Lifetime,
}

impl Connection {
    /// The protocol that the handshake has settled by ALPN.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }

    /// The certificate that the peer has presented, if any. The handshake has verified that the peer has its key, and nothing
    /// else.
    #[must_use]
    pub fn client_certificate(&self) -> Option<ClientCertificate> {
        ClientCertificate::new(self.stream.get_ref().1.peer_certificates().unwrap_or_default())
    }
}

/// What speaks on connections that the front has accepted.
pub trait Protocol: Send + Sync + 'static {
    /// The names that the handshake offers by ALPN, the preferred one first.
    const ALPN: &'static [&'static [u8]];

    /// Serves a connection until it ends, or until its [`Lifetime`] does.
    fn serve(self: Arc<Self>, connection: Connection) -> impl Future<Output = ()> + Send;

    /// Called when no more connections are accepted. What is being worked on is finished; nothing is retried any more.
    fn stop(&self);

    /// Waits until everything that was accepted is finished, including work that goes on after its connection.
    fn finished(&self) -> impl Future<Output = ()> + Send;
}

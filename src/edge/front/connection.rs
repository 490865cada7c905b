//! What the front hands to a protocol.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

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
    /// The certificate that the peer has presented, if any. The handshake has verified that the peer has its key, and nothing
    /// else.
    pub certificate: Option<ClientCertificate>,
    /// When the connection must be closed; at the latest when the certificate ends.
    pub lifetime: Lifetime,
}

impl Connection {
    /// A connection that begins now, and ends at the latest when `stop` turns true.
    pub(super) fn new(stream: TlsStream, peer: IpAddr, stop: watch::Receiver<bool>) -> Self {
        let certificate = ClientCertificate::new(stream.get_ref().1.peer_certificates().unwrap_or_default());
        let until = certificate.as_ref().and_then(|certificate| ends(certificate.not_after(), Timestamp::now()));
        Self { stream, peer, certificate, lifetime: Lifetime::new(stop, until) }
    }

    /// The protocol that the handshake has settled by ALPN.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

/// When the last second of a validity is over; `None` for one that no clock here reaches.
fn ends(not_after: i64, now: Timestamp) -> Option<Instant> {
    let left = not_after.saturating_add(1).saturating_sub(now.as_second());
    Instant::now().checked_add(Duration::from_secs(u64::try_from(left).unwrap_or_default()))
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

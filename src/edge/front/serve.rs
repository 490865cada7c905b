//! The accept loop, the handshake and the stop. What a peer can hold before it has sent anything is limited here.

use std::net;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::audit::AuditLog;
use super::certificate::{CertificateError, LoadedCertificate};
use super::connection::{Connection, Protocol, TlsStream};
use super::lifetime::DRAIN_TIMEOUT;
use super::limits::{ProcessLimits, Quota, network_of};
use super::metrics::FrontMetrics;
use super::serving::{ServingCertificate, ServingCertificates};
use super::tls::Tls;
use super::workers::{PerWorker, Workers};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the accept loop waits after an error, such as when there are no more file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What every role of the edge has in front of its protocol.
pub struct Front {
    tls: Tls,
    connections: Arc<Quota>,
    audit: AuditLog,
    metrics: FrontMetrics,
    workers: Workers,
}

impl Front {
    /// A front without a certificate: connections are dropped until one is installed.
    #[must_use]
    pub fn new(limits: ProcessLimits, audit: AuditLog, metrics: FrontMetrics, workers: Workers) -> Self {
        Self { tls: Tls::new(), connections: limits.connections(), audit, metrics, workers }
    }

    /// Something of which each thread that serves connections has its own.
    pub fn per_worker<T>(&self, make: impl FnMut() -> T) -> PerWorker<T> {
        self.workers.each(make)
    }

    /// Shows the edge's own certificate in the handshakes of a protocol from now on.
    ///
    /// # Errors
    /// When it cannot be used; handshakes go on with the former one.
    pub fn install<P: Protocol>(&self, loaded: &LoadedCertificate) -> Result<(), CertificateError> {
        let LoadedCertificate { chain, key, expires_at, .. } = loaded;
        let own = ServingCertificate::new(chain.clone(), key.clone_key(), *expires_at, self.tls.provider())?;
        self.tls.show(P::ALPN, |shown| shown.own = Some(Arc::new(own))).map_err(CertificateError::Pair)?;
        self.metrics.certificate_expires(*expires_at);
        Ok(())
    }

    /// Notes that there will be a certificate in this Secret that callers are shown.
    pub fn expect(&self, secret: &str) {
        self.metrics.serving_certificate_expires(secret, 0);
    }

    /// Shows the certificate of a Secret to callers that ask for one of its names, from now on, and in place of the former one with
    /// this place in the configuration. That of the first place is shown where no name matches.
    ///
    /// # Errors
    /// Names the entry that cannot be used; handshakes go on with the former one.
    pub fn show<P: Protocol>(
        &self,
        place: usize,
        secret: &str,
        chain: &[u8],
        key: &[u8],
    ) -> Result<(), CertificateError> {
        let certificate = Arc::new(ServingCertificate::parse(chain, key, self.tls.provider())?);
        let expires_at = certificate.expires_at;
        let change = |shown: &mut ServingCertificates| drop(shown.named.insert(place, certificate));
        self.tls.show(P::ALPN, change).map_err(CertificateError::Pair)?;
        self.metrics.serving_certificate_expires(secret, expires_at);
        Ok(())
    }

    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Writes a line to the audit log; `is_refusal` says that nothing was delivered.
    pub fn record(&self, record: &impl Serialize, is_refusal: bool) {
        if !self.audit.write(record, is_refusal) {
            self.metrics.audit_line_lost();
        }
    }

    /// How much of the connections is used: 0 to 1.
    #[must_use]
    pub fn connections_used(&self) -> f64 {
        self.connections.used()
    }

    /// Serves until `stop` turns true, and what was accepted is finished and in the audit log.
    pub async fn serve<P: Protocol>(
        self: Arc<Self>,
        protocol: Arc<P>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection; retrying");
                    sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            let mut permit = self.connections.permit(network_of(peer.ip()), None);
            if !permit.grow(1) {
                self.metrics.turned_away();
                continue;
            }
            // It is registered anew with the event loop of the thread that serves it.
            let Ok(stream) = stream.into_std() else { continue };
            let (front, protocol, stop) = (self.clone(), protocol.clone(), stop.clone());
            self.workers.spawn(connections.track_future(async move {
                if let Some(stream) = front.accept_tls(stream).await {
                    protocol.serve(Connection::new(stream, peer.ip().to_canonical(), stop)).await;
                }
                drop(permit);
            }));
        }
        drop(listener);
        protocol.stop();
        let finished = async {
            connections.close();
            connections.wait().await;
            protocol.finished().await;
        };
        if timeout(DRAIN_TIMEOUT, finished).await.is_err() {
            tracing::warn!("timed out waiting for connections to finish; dropping them");
        }
        self.audit.flush();
    }

    async fn accept_tls(&self, stream: net::TcpStream) -> Option<TlsStream> {
        let stream = TcpStream::from_std(stream).ok()?;
        // Small answers must not wait for each other.
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream)).await else {
            self.metrics.handshake_failed();
            return None;
        };
        Some(stream)
    }
}

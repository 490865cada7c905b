//! The accept loop, the handshake and the stop. What a peer can hold before it has sent anything is limited here.

use std::net;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::audit::AuditLog;
use super::certificate::{CertificateError, LoadedCertificate, TlsCertificate};
use super::connection::{Connection, Protocol, TlsStream};
use super::lifetime::Lifetime;
use super::limits::{ProcessLimits, Quota};
use super::metrics::FrontMetrics;
use super::workers::{PerWorker, Workers};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stop waits for what was accepted.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// How long the accept loop waits after an error, such as when there are no more file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// What every role of the edge has in front of its protocol.
pub struct Front {
    certificate: TlsCertificate,
    connections: Arc<Quota>,
    audit: AuditLog,
    metrics: FrontMetrics,
    workers: Workers,
}

impl Front {
    /// A front without a certificate: connections are dropped until one is installed.
    #[must_use]
    pub fn new(limits: ProcessLimits, audit: AuditLog, metrics: FrontMetrics, workers: Workers) -> Self {
        Self { certificate: TlsCertificate::default(), connections: limits.connections(), audit, metrics, workers }
    }

    /// Something of which each thread that serves connections has its own.
    pub fn per_worker<T>(&self, make: impl FnMut() -> T) -> PerWorker<T> {
        self.workers.each(make)
    }

    /// Uses a certificate for the handshakes of a protocol from now on.
    ///
    /// # Errors
    /// When it cannot be used; handshakes go on with the former one.
    pub fn install<P: Protocol>(&self, loaded: &LoadedCertificate) -> Result<(), CertificateError> {
        self.certificate.install(loaded, P::ALPN)?;
        self.metrics.certificate_expires(loaded.expires_at);
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
            let mut permit = self.connections.permit(peer.ip().to_canonical());
            if !permit.grow(1) {
                self.metrics.turned_away();
                continue;
            }
            // It is registered anew with the event loop of the thread that serves it.
            let Ok(stream) = stream.into_std() else { continue };
            let (front, protocol, stop) = (self.clone(), protocol.clone(), stop.clone());
            self.workers.spawn(connections.track_future(async move {
                if let Some(stream) = front.accept_tls(stream).await {
                    let peer = peer.ip().to_canonical();
                    protocol.serve(Connection { stream, peer, lifetime: Lifetime::new(stop) }).await;
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
        let config = self.certificate.load()?;
        let stream = TcpStream::from_std(stream).ok()?;
        // Small answers must not wait for each other.
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await else {
            self.metrics.handshake_failed();
            return None;
        };
        Some(stream)
    }
}

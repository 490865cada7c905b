//! What every role of the edge does as a process: it starts, serves until it is asked to stop, and finishes what it accepted.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinError;

use super::front::{AuditLog, AuditOptions, CertificateError, Front, FrontMetrics, LoadedCertificate, Workers};
use super::http::{Http, Service};
use crate::kubernetes::health::{Health, Stage};
use crate::server;

/// The Secrets with the certificates of a role.
pub struct CertificateSecrets {
    /// The one with its own.
    pub own: String,
    /// Those that callers are shown, the preferred one first.
    pub serving: Vec<String>,
}

/// What every role is started with.
pub struct Options {
    /// Namespace that the role runs in.
    pub namespace: String,
    /// Name of this replica.
    pub replica: String,
    /// UID of the pod, if the replica runs in one.
    pub pod_uid: Option<String>,
    /// The Secrets with its certificates.
    pub certificates: CertificateSecrets,
    /// Address for callers, over TLS.
    pub listen: SocketAddr,
    /// Address for /healthz, /readyz and /metrics.
    pub listen_metrics: SocketAddr,
    /// Where audit lines go.
    pub audit: AuditOptions,
    /// How many threads serve connections.
    pub threads: NonZeroUsize,
}

/// Why a role could not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration does not make a client of the API server. Why is not repeated: it may quote a key.
    #[error("cannot set up a client of the API server; check the certificates, keys and files of the kubeconfig")]
    Client,
    /// The audit log cannot be opened.
    #[error("cannot open the audit log")]
    AuditLog(#[source] io::Error),
    /// The threads that serve connections cannot be started.
    #[error("cannot start the threads that serve connections")]
    Threads(#[source] io::Error),
    /// The signal that the audit log was moved cannot be received.
    #[error("cannot receive SIGHUP")]
    Signal(#[source] io::Error),
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A part that must run for ever has ended.
    #[error("{0} ended unexpectedly; see the log")]
    Ended(&'static str),
    /// A part has panicked.
    #[error("{part} failed")]
    Panicked {
        /// Which one.
        part: &'static str,
        /// How.
        source: JoinError,
    },
}

/// A role of the edge that speaks HTTP.
pub trait Role: Service {
    /// What stands before it.
    fn front(&self) -> &Arc<Front>;

    /// Uses a certificate of its own from now on.
    ///
    /// # Errors
    /// When it cannot be used; the former one stays in use.
    fn use_certificate(&self, loaded: &LoadedCertificate) -> Result<(), CertificateError>;

    /// All metrics, as text.
    fn render_metrics(&self) -> String;
}

impl Options {
    /// The pod that this replica runs in.
    #[must_use]
    pub fn pod(&self) -> Option<OwnerReference> {
        let uid = self.pod_uid.clone()?;
        let (api_version, kind, name) = ("v1".to_owned(), "Pod".to_owned(), self.replica.clone());
        Some(OwnerReference { api_version, kind, name, uid, ..OwnerReference::default() })
    }

    /// Opens the audit log, and starts the threads that serve connections.
    ///
    /// # Errors
    /// Why not.
    pub fn start(&self, metrics: &FrontMetrics) -> Result<(AuditLog, Workers), RunError> {
        let audit = AuditLog::open(self.audit.clone()).map_err(RunError::AuditLog)?;
        Ok((audit, Workers::start(self.threads, metrics).map_err(RunError::Threads)?))
    }
}

/// Serves until `stop_requested` is ready; then what was accepted is finished, after `withdrawing`. Meanwhile `following` is polled,
/// which must not end. SIGHUP opens the audit log anew.
///
/// # Errors
/// Why it could not start, or which part of it ended unexpectedly.
pub async fn serve<R: Role>(
    role: Arc<R>,
    options: &Options,
    health: Arc<Health>,
    following: impl Future<Output = ()>,
    stop_requested: impl Future<Output = ()>,
    withdrawing: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let Options { listen, listen_metrics, .. } = options;
    health.enter(Stage::Working);
    let (stop, stopping) = watch::channel(false);
    let measured = role.clone();
    let metrics = move || measured.render_metrics();
    let mut server = tokio::spawn(server::serve(*listen_metrics, metrics, health, stopping.clone()));
    let listener = TcpListener::bind(listen).await.map_err(|source| RunError::Listen { address: *listen, source })?;
    tracing::info!(address = %listen, "serving");
    let front = role.front().clone();
    let serving = tokio::spawn(front.clone().serve(Http::new(role), listener, stopping));
    let mut hangups = signal(SignalKind::hangup()).map_err(RunError::Signal)?;
    let moved = async {
        while hangups.recv().await.is_some() {
            front.audit().reopen();
        }
    };
    tokio::select! {
        () = moved => return Err(RunError::Ended("the signals")),
        () = following => return Err(RunError::Ended("the watches")),
        ended = &mut server => return Err(match ended {
            Ok(Err(source)) => RunError::Listen { address: *listen_metrics, source },
            Ok(Ok(())) => RunError::Ended("the HTTP server"),
            Err(source) => RunError::Panicked { part: "the HTTP server", source },
        }),
        () = stop_requested => {}
    }
    tracing::info!("stopping; finishing what was accepted");
    withdrawing.await;
    stop.send_replace(true);
    serving.await.map_err(|source| RunError::Panicked { part: "the edge", source })
}

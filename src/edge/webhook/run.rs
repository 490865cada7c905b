//! Runs the webhook gateway as a process: `credence edge --serve webhooks`.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinError;

use super::deliver::object::Objects;
use super::gateway::Gateway;
use super::metrics::Metrics;
use super::replay::{InvalidRedisUrl, Redis};
use super::routing::RoutingConfig;
use super::tidy::tidy_forever;
pub use super::watch::CertificateSecrets;
use super::{report, watch as routes};
use crate::domain::address_policy::AddressPolicy;
use crate::edge::front::{AuditLog, AuditOptions, DRAIN_TIMEOUT, FLUSH_TIMEOUT, Workers};
use crate::edge::http::Http;
use crate::kubernetes::health::{Health, Stage};
use crate::server;

/// How long a stop takes at most.
pub const MAX_STOP: Duration = report::WITHDRAW_TIMEOUT.saturating_add(DRAIN_TIMEOUT).saturating_add(FLUSH_TIMEOUT);

/// What the gateway is started with.
pub struct Options {
    /// Namespace that the edge runs in.
    pub namespace: String,
    /// Name of this replica.
    pub replica: String,
    /// UID of the pod, if the replica runs in one.
    pub pod_uid: Option<String>,
    /// The Secrets with the edge's certificates.
    pub certificates: CertificateSecrets,
    /// How Services and destinations are reached.
    pub routing: RoutingConfig,
    /// Address for deliveries, over TLS.
    pub listen: SocketAddr,
    /// Address for /healthz, /readyz and /metrics.
    pub listen_metrics: SocketAddr,
    /// URL of the Redis with the delivery history.
    pub redis_url: Option<String>,
    /// Which addresses it may have.
    pub redis_addresses: AddressPolicy,
    /// Where audit lines go.
    pub audit: AuditOptions,
    /// How many threads serve connections.
    pub threads: NonZeroUsize,
}

/// Why the gateway could not run.
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
    /// The URL of Redis is invalid.
    #[error("invalid URL of Redis")]
    Redis(#[from] InvalidRedisUrl),
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

/// Runs the gateway until `stop_requested` is ready; then what was accepted is finished. SIGHUP opens the audit log anew.
///
/// # Errors
/// Why it could not start, or which part of it ended unexpectedly.
pub async fn run(
    config: kube::Config,
    options: Options,
    stop_requested: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let Options { namespace, replica, listen, listen_metrics, .. } = &options;
    let client_error = |_| RunError::Client;
    let client = kube::Client::try_from(config.clone()).map_err(client_error)?;
    let objects = Objects::new(config, client.clone(), namespace).map_err(client_error)?;
    let audit = AuditLog::open(options.audit.clone()).map_err(RunError::AuditLog)?;
    let redis = options.redis_url.as_deref().map(|url| Redis::new(url, &options.redis_addresses)).transpose()?;
    let metrics = Metrics::default();
    let workers = Workers::start(options.threads, &metrics.front).map_err(RunError::Threads)?;
    let gateway = Arc::new(Gateway::new(metrics, workers, options.routing.clone(), audit, redis, objects));
    let health = Arc::new(Health::default());
    for part in routes::PARTS {
        health.starting(part);
    }
    health.enter(Stage::Working);
    let (stop, stopping) = watch::channel(false);
    let measured = gateway.clone();
    let metrics = move || measured.render_metrics();
    let mut server = tokio::spawn(server::serve(*listen_metrics, metrics, health.clone(), stopping.clone()));
    let listener = TcpListener::bind(listen).await.map_err(|source| RunError::Listen { address: *listen, source })?;
    tracing::info!(address = %listen, "receiving webhooks");
    let pod = options.pod_uid.clone().map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: replica.clone(),
        uid,
        ..OwnerReference::default()
    });
    let serving = tokio::spawn(gateway.front.clone().serve(Http::new(gateway.clone()), listener, stopping));
    let following = async {
        tokio::join!(
            routes::follow(&gateway, client.clone(), namespace, &options.certificates, health),
            report::publish(&gateway, client.clone(), namespace, replica, pod),
            tidy_forever(&gateway),
            gateway.history.watch_redis(),
        )
    };
    let mut hangups = signal(SignalKind::hangup()).map_err(RunError::Signal)?;
    let moved = async {
        while hangups.recv().await.is_some() {
            gateway.front.audit().reopen();
        }
    };
    tokio::select! {
        () = moved => return Err(RunError::Ended("the signals")),
        _ = following => return Err(RunError::Ended("the watches")),
        ended = &mut server => return Err(match ended {
            Ok(Err(source)) => RunError::Listen { address: *listen_metrics, source },
            Ok(Ok(())) => RunError::Ended("the HTTP server"),
            Err(source) => RunError::Panicked { part: "the HTTP server", source },
        }),
        () = stop_requested => {}
    }
    tracing::info!("stopping; finishing accepted deliveries");
    report::withdraw(client, namespace, replica).await;
    stop.send_replace(true);
    serving.await.map_err(|source| RunError::Panicked { part: "the edge", source })
}

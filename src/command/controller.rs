//! `credence controller`: runs the operator.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use credence::controllers::{self, Settings};
use credence::domain::address_policy::AddressPolicy;
use credence::domain::fence::Fence;
use credence::kubernetes::client::{ClientError, client};
use credence::kubernetes::health::{Health, Stage};
use credence::kubernetes::lease::Candidate;
use credence::kubernetes::scope::NamespaceScope;
use credence::metrics::Metrics;
use credence::server;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::process::{self, LogFormat, ProcessError};

/// How long a stop waits for the current work: a pod has 30 seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Run the operator. If an option is repeated, the last value wins.
#[derive(clap::Args)]
#[command(args_override_self = true)]
pub struct Args {
    /// Namespace of the operator, with the Secrets of `TrustDomains` and `BrokerConnections`.
    #[arg(long, env = "POD_NAMESPACE", default_value = "credence-system")]
    namespace: String,
    /// Namespaces that the operator works in, separated by commas. It then reads and writes no Secret anywhere else; its own
    /// namespace and that of the edge are always among them. Default: all namespaces.
    #[arg(long, value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Name of this replica, unique among all operators of the cluster. A process that restarts under the same name takes its
    /// lease over at once. Default: host name and process ID.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Seconds until the lease of a leader expires that does not renew it; then another replica takes over.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_seconds: u64,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Address for /healthz, /readyz and /metrics, over HTTP.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Namespace of the webhook gateway. Without it, `WebhookEndpoints` and `WebhookDestinations` are not accepted.
    #[arg(long)]
    edge_namespace: Option<String>,
    /// Namespace of the token issuer. Without it, no access tokens are issued.
    #[arg(long)]
    tokens_namespace: Option<String>,
    /// Address at which the webhook gateway reaches every Service instead of its own: as its own option of this name says. Then
    /// Services are not looked up.
    #[arg(long)]
    service_address: Option<IpAddr>,
    /// The one loopback address, such as `127.0.0.1`, that brokers may have: for an installation on a machine without a network.
    /// Without it, no connection leads to a loopback address.
    #[arg(long)]
    loopback_address: Option<IpAddr>,
    /// Seconds between two checks of a broker for drift.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    broker_resync_seconds: u64,
    /// Seconds for which a `TopicPolicy` has to be absent until the rights that it left on a broker are revoked.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    absent_policies_seconds: u64,
    /// Format of the log, which goes to standard output. The environment variable `RUST_LOG` sets the level.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Why the operator could not run.
#[derive(Debug, Error)]
pub enum ControllerError {
    /// There is no access to a cluster.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The configuration does not make a client of the API server.
    #[error("cannot set up a client of the API server")]
    Client(#[from] ClientError),
    /// An address cannot be served on.
    #[error("cannot serve on {address}")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A part that must run for ever has ended.
    #[error("{0} ended unexpectedly; see the log")]
    Ended(&'static str),
}

/// Runs the operator until the process is asked to stop.
pub async fn run(args: Args) -> Result<(), ControllerError> {
    process::ignore_signals()?;
    let config = process::cluster().await?;
    let metrics = Arc::new(Metrics::default());
    let health = Arc::new(Health::default());
    let (stop, stopping) = watch::channel(false);
    let for_server = metrics.clone();
    let server = server::serve(args.listen, move || for_server.render(), health.clone(), stopping.clone());
    let mut server = tokio::spawn(server);
    let terms = async {
        loop {
            match serve_a_term(&args, config.clone(), &metrics, &health, stopping.clone()).await {
                Ok(Term::Lost) => {}
                Ok(Term::Stopped) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    let mut terms = pin!(terms);
    tokio::select! {
        outcome = &mut terms => outcome,
        ended = &mut server => Err(server_ended(ended, args.listen)),
        () = process::stop_requested() => {
            tracing::info!("stopping; finishing the current work");
            stop.send_replace(true);
            terms.await
        }
    }
}

/// How a term of leadership ended.
enum Term {
    /// The operator was asked to stop.
    Stopped,
    /// Another replica has the lease, or it could not be renewed.
    Lost,
}

/// Waits for the lease, and runs the controllers until it is lost. Everything in memory belongs to the term: the next term begins
/// with the state of the cluster and of the brokers, and with a fence of its own.
async fn serve_a_term(
    args: &Args,
    config: kube::Config,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    mut stopping: watch::Receiver<bool>,
) -> Result<Term, ControllerError> {
    let identity = args.identity.clone().unwrap_or_else(process::default_identity);
    let fence = Fence::default();
    let duration = Duration::from_secs(args.lease_seconds);
    let unfenced = client(config.clone(), &identity, None, metrics.clone())?;
    let mut candidate = Candidate::new(unfenced, &args.namespace, identity.clone(), duration, fence.clone());
    let client = client(config, &identity, Some(fence.clone()), metrics.clone())?;
    let own = [Some(args.namespace.clone()), args.edge_namespace.clone(), args.tokens_namespace.clone()];
    let settings = Settings {
        scope: NamespaceScope::new(&args.namespaces, own.into_iter().flatten()),
        namespace: args.namespace.clone(),
        cluster_domain: args.cluster_domain.clone(),
        service_address: args.service_address,
        own_port: args.listen.port(),
        edge_namespace: args.edge_namespace.clone(),
        tokens_namespace: args.tokens_namespace.clone(),
        broker_addresses: AddressPolicy::trusted(args.loopback_address),
        broker_resync: Duration::from_secs(args.broker_resync_seconds),
        absent_policies_after: Duration::from_secs(args.absent_policies_seconds),
    };
    health.enter(Stage::StandingBy);
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => return Ok(Term::Stopped),
        () = candidate.lead() => {}
    }
    metrics.leading(true);
    let work = controllers::run(client, fence, settings, metrics.clone(), health.clone(), stopping.clone());
    // A dropped set aborts its tasks, so that no task outlives the term.
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    let outcome = tokio::select! {
        () = candidate.hold() => Ok(Term::Lost),
        ended = finish(&mut tasks, &mut stopping) => ended,
    };
    metrics.stand_down();
    if matches!(outcome, Ok(Term::Lost)) {
        tracing::warn!("lost leadership; waiting for the lease");
    } else {
        candidate.release().await;
    }
    outcome
}

/// Waits until the controllers have ended; after a stop was requested, for no longer than a pod has.
async fn finish(work: &mut JoinSet<()>, stopping: &mut watch::Receiver<bool>) -> Result<Term, ControllerError> {
    tokio::select! {
        _ = work.join_next() => return Err(ControllerError::Ended("the controllers")),
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    if tokio::time::timeout(STOP_TIMEOUT, work.join_next()).await.is_err() {
        tracing::warn!("timed out waiting for the current work; the next leader continues it");
    }
    Ok(Term::Stopped)
}

fn server_ended(ended: Result<io::Result<()>, JoinError>, address: SocketAddr) -> ControllerError {
    match ended {
        Ok(Err(source)) => ControllerError::Serve { address, source },
        _ => ControllerError::Ended("the HTTP server"),
    }
}

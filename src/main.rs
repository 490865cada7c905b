//! `credence`: parses the command line, installs the TLS provider and logging, and dispatches.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use credence::controllers::{self, Settings};
use credence::domain::fence::Fence;
use credence::kubernetes::client::client;
use credence::kubernetes::health::{Health, Stage};
use credence::kubernetes::lease::Candidate;
use credence::metrics::Metrics;
use credence::{api, edge, server};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Gives every service its own verifiable identity, and puts it to work wherever services meet.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Controller(ControllerArgs),
    /// Run the edge: receive webhooks, verify them, and hand them on.
    Edge(EdgeArgs),
    /// Write the CRD manifests into a directory, one file per kind.
    Crds {
        /// Directory to write to.
        directory: PathBuf,
    },
}

/// An option that is given twice counts as it was given last, so that a wrapper can change what a chart has set.
#[derive(Args)]
#[command(args_override_self = true)]
struct ControllerArgs {
    /// Namespace that the operator runs in. Secrets of `TrustDomains` and `BrokerConnections` live there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "credence-system")]
    namespace: String,
    /// Name of this process among all operators of the cluster; none but its own successor may have it.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Seconds after which a leader that does not renew its lease is succeeded.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease_seconds: u64,
    /// Domain of the cluster's Services.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Address for /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Namespace of the edge. Without one, webhooks are refused.
    #[arg(long)]
    edge_namespace: Option<String>,
    /// Seconds between two comparisons of a broker with what was applied there.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    broker_resync_seconds: u64,
    /// How logs are written. The environment variable `RUST_LOG` sets what is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

/// An option that is given twice counts as it was given last, so that a wrapper can change what a chart has set.
#[derive(Args)]
#[command(args_override_self = true)]
struct EdgeArgs {
    /// Namespace that the edge runs in: its routes and its certificate are there, and it reads nothing else.
    #[arg(long, env = "POD_NAMESPACE", default_value = "credence-edge")]
    namespace: String,
    /// Name of this replica; its report on what it serves is a `ConfigMap` of this name.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// UID of the pod, for the report to go with it.
    #[arg(long, env = "POD_UID")]
    pod_uid: Option<String>,
    /// Secret with `tls.crt`, `tls.key` and `ca.crt`: what callers are shown, what assertions are signed with, and the
    /// authorities that client certificates may chain to. Usually that of a `ServiceIdentity`.
    #[arg(long, default_value = "edge-mtls")]
    certificate_secret: String,
    /// Domain of the cluster's Services.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Address at which every Service is reached instead of its name, in a cluster without a network.
    #[arg(long)]
    service_address: Option<IpAddr>,
    /// A network, such as `10.1.0.0/16`, that webhooks may be sent out to although it is not on the Internet; may be given
    /// several times.
    #[arg(long = "allow-destinations", value_name = "NETWORK")]
    allowed_destinations: Vec<edge::Network>,
    /// Address for webhooks, over TLS.
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Address for /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen_metrics: SocketAddr,
    /// URL of the Redis or Valkey that remembers deliveries for all replicas, as `rediss://user:password@host:6379/0`.
    #[arg(long, env = "CREDENCE_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// File for audit lines, one JSON object each. Default: standard output.
    #[arg(long)]
    audit_log: Option<PathBuf>,
    /// How logs are written, to standard error. The environment variable `RUST_LOG` sets what is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("credence: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<(), String> {
    match command {
        Command::Crds { directory } => write_crds(&directory),
        Command::Controller(args) => {
            log(args.log_format, BoxMakeWriter::new(std::io::stdout));
            run(control(args))
        }
        Command::Edge(args) => {
            log(args.log_format, BoxMakeWriter::new(std::io::stderr));
            run(serve_edge(args))
        }
    }
}

fn run(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed already".to_owned())?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?
        .block_on(work)
}

/// The operator logs to standard output; the edge, which may keep its audit log there, to standard error.
fn log(format: LogFormat, writer: BoxMakeWriter) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        LogFormat::Text => builder.init(),
    }
}

fn write_crds(directory: &Path) -> Result<(), String> {
    for (file, manifest) in api::crds().map_err(|error| format!("cannot generate the CRDs: {error}"))? {
        let path = directory.join(file);
        let text = serde_saphyr::to_string(&manifest).map_err(|error| format!("cannot write YAML: {error}"))?;
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

async fn control(args: ControllerArgs) -> Result<(), String> {
    let config = kube::Config::infer()
        .await
        .map_err(|error| format!("no access to a cluster: {error}; set KUBECONFIG, or run inside of one"))?;
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
                Err(message) => return Err(message),
            }
        }
    };
    let mut terms = pin!(terms);
    tokio::select! {
        outcome = &mut terms => outcome,
        ended = &mut server => Err(server_ended(ended, args.listen)),
        () = stop_requested() => {
            tracing::info!("stopping: the work in hand is finished first");
            stop.send_replace(true);
            terms.await
        }
    }
}

/// How a term of leadership ended.
enum Term {
    /// The operator was asked to stop.
    Stopped,
    /// The lease is another's, or could not be renewed.
    Lost,
}

/// Waits for the lease and works until it is lost. Everything in memory belongs to the term: the next one begins with
/// what the cluster and the brokers hold, behind a fence of its own.
async fn serve_a_term(
    args: &ControllerArgs,
    config: kube::Config,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
    mut stopping: watch::Receiver<bool>,
) -> Result<Term, String> {
    let identity = args.identity.clone().unwrap_or_else(default_identity);
    let fence = Fence::default();
    let duration = Duration::from_secs(args.lease_seconds);
    let unfenced = client(config.clone(), &identity, None, metrics.clone())?;
    let mut candidate = Candidate::new(unfenced, &args.namespace, identity.clone(), duration, fence.clone());
    let client = client(config, &identity, Some(fence.clone()), metrics.clone())?;
    let settings = Settings {
        namespace: args.namespace.clone(),
        cluster_domain: args.cluster_domain.clone(),
        edge_namespace: args.edge_namespace.clone(),
        broker_resync: Duration::from_secs(args.broker_resync_seconds),
    };
    health.enter(Stage::StandingBy);
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => return Ok(Term::Stopped),
        () = candidate.lead() => {}
    }
    metrics.leading(true);
    let work = controllers::run(client, fence, settings, metrics.clone(), health.clone(), stopping.clone());
    // A set ends its task when it is dropped, so that nothing of the work outlives the term.
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    let outcome = tokio::select! {
        () = candidate.hold() => Ok(Term::Lost),
        ended = finish(&mut tasks, &mut stopping) => ended,
    };
    metrics.stand_down();
    if matches!(outcome, Ok(Term::Lost)) {
        tracing::warn!("the lease was lost; this process stands by");
    } else {
        candidate.release().await;
    }
    outcome
}

/// Waits until the work has ended; once it was asked to, for no longer than a pod has.
async fn finish(work: &mut JoinSet<()>, stopping: &mut watch::Receiver<bool>) -> Result<Term, String> {
    tokio::select! {
        _ = work.join_next() => return Err("the controllers ended by themselves; see the log".to_owned()),
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    if tokio::time::timeout(Duration::from_secs(20), work.join_next()).await.is_err() {
        tracing::warn!("some work did not finish in time; it is taken up at the next start");
    }
    Ok(Term::Stopped)
}

async fn serve_edge(args: EdgeArgs) -> Result<(), String> {
    let config = kube::Config::infer()
        .await
        .map_err(|error| format!("no access to a cluster: {error}; set KUBECONFIG, or run inside of one"))?;
    let client = kube::Client::try_from(config.clone()).map_err(|error| error.to_string())?;
    let objects = edge::Objects::new(config, client.clone(), &args.namespace)?;
    let log = edge::Log::open(args.audit_log.as_deref()).map_err(|error| format!("the audit log: {error}"))?;
    let surroundings = edge::Surroundings {
        cluster_domain: args.cluster_domain.clone(),
        service_address: args.service_address,
        destinations: edge::Reach::Public(args.allowed_destinations.clone().into()),
    };
    let redis = args.redis_url.as_deref().map(edge::Redis::new).transpose();
    let redis = redis.map_err(|why| format!("the URL of Redis: {why}"))?;
    let edge = Arc::new(edge::Edge::new(surroundings, log, redis, objects));
    let health = Arc::new(Health::default());
    for part in edge::watch::PARTS {
        health.starting(part);
    }
    health.enter(Stage::Working);
    let (stop, stopping) = watch::channel(false);
    let measured = edge.clone();
    let server = server::serve(args.listen_metrics, move || measured.measured(), health.clone(), stopping.clone());
    let mut server = tokio::spawn(server);
    let listener =
        TcpListener::bind(args.listen).await.map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    tracing::info!(address = %args.listen, "receiving webhooks");
    let replica = args.identity.clone().unwrap_or_else(default_identity);
    let pod = args.pod_uid.clone().map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: replica.clone(),
        uid,
        ..OwnerReference::default()
    });
    let serving = tokio::spawn(edge::serve(edge.clone(), listener, stopping.clone()));
    let following = async {
        tokio::join!(
            edge::watch::follow(&edge, client.clone(), &args.namespace, &args.certificate_secret, health),
            edge::report::tell(&edge, client.clone(), &args.namespace, &replica, pod),
        )
    };
    tokio::select! {
        _ = following => return Err("the watches ended by themselves; see the log".to_owned()),
        ended = &mut server => return Err(server_ended(ended, args.listen_metrics)),
        () = stop_requested() => {}
    }
    tracing::info!("stopping: what was accepted is delivered first");
    edge::report::withdraw(client, &args.namespace, &replica).await;
    stop.send_replace(true);
    serving.await.map_err(|error| format!("the edge ended: {error}"))
}

/// The host's name and the process's: no two processes share both.
fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

fn server_ended(ended: Result<std::io::Result<()>, tokio::task::JoinError>, address: SocketAddr) -> String {
    match ended {
        Ok(Err(error)) => format!("cannot serve on {address}: {error}"),
        _ => "the HTTP server ended".to_owned(),
    }
}

async fn stop_requested() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => _ = signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

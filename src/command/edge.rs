//! `credence edge`: runs one role of the edge.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::ValueEnum;
use credence::domain::address_policy::AddressPolicy;
use credence::edge::front::{AuditOptions, WhenFull};
use credence::edge::role::{self, CertificateSecrets, RunError};
use credence::edge::webhook::routing::{AllowedDestination, RoutingConfig};
use credence::edge::webhook::run::{GatewayError, Options};
use credence::edge::{tokens, webhook};
use thiserror::Error;

use super::process::{self, LogFormat, ProcessError};

/// What an edge process does. Each role has a Deployment, a ServiceAccount and a namespace of its own, so that none of them
/// holds the keys of another.
#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// The webhook gateway: verify what is received from outside and deliver it; sign and deliver what services send.
    Webhooks,
    /// The issuer of access tokens for calls between services.
    Tokens,
}

/// What happens to deliveries while the queue of audit lines is full.
#[derive(Clone, Copy, ValueEnum)]
enum AuditWhenFull {
    /// They are answered 503 before anything is delivered.
    Refuse,
    /// They go on without an audit line, and are counted in `credence_edge_audit_lines_lost_total`.
    Lose,
}

/// Run one role of the edge, which faces callers from outside of the cluster. If an option is repeated, the last value wins.
#[derive(clap::Args)]
#[command(args_override_self = true)]
pub struct Args {
    /// The role that this process has.
    #[arg(long, value_enum, default_value_t = Role::Webhooks)]
    serve: Role,
    /// Namespace of this process, with its routes and its certificate. It has access to no other.
    #[arg(long, env = "POD_NAMESPACE", default_value = "credence-edge")]
    namespace: String,
    /// Name of this replica, and of the ConfigMap in which it reports the routes that it serves. Default: host name and
    /// process ID.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// UID of the pod. The report of this replica is deleted with it.
    #[arg(long, env = "POD_UID")]
    pod_uid: Option<String>,
    /// Secret with `tls.crt`, `tls.key` and `ca.crt`: the certificate for TLS and for signing assertions, and the
    /// authorities that vouch for SPIFFE IDs of callers. Usually that of a `ServiceIdentity`.
    #[arg(long, default_value = "edge-mtls")]
    certificate_secret: String,
    /// Secret of the type `kubernetes.io/tls` with a certificate that callers are shown when they ask for one of its names. May be
    /// repeated; all values count, and the first is shown where no name matches. Default: the edge's own certificate.
    #[arg(long = "serving-certificate-secret", value_name = "SECRET")]
    serving_certificate_secrets: Vec<String>,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Address at which every Service is reached instead of its own, for a cluster without a network.
    #[arg(long)]
    service_address: Option<IpAddr>,
    /// The one loopback address, such as `127.0.0.1`, that brokers, Redis and key sets may have: for an installation on a machine without a
    /// network. Without it, no connection to them leads to a loopback address.
    #[arg(long)]
    loopback_address: Option<IpAddr>,
    /// Network that webhooks may be sent to although it is not on the Internet, such as `10.1.0.0/16`, or `shop=10.1.0.0/16` for
    /// those of the namespace `shop` only. May be repeated; all values count.
    #[arg(long = "allow-destinations", value_name = "NETWORK")]
    allowed_destinations: Vec<AllowedDestination>,
    /// Address to receive deliveries on, over TLS.
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Address for /healthz, /readyz and /metrics, over HTTP.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen_metrics: SocketAddr,
    /// URL of the Redis or Valkey with the delivery history of all replicas, as `rediss://user:password@host:6379/0`. Endpoints
    /// with `replay.store: Redis` need it.
    #[arg(long, env = "CREDENCE_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// File of the audit log, which gets one JSON object per request. SIGHUP opens it anew. Default: standard output.
    #[arg(long)]
    audit_log: Option<PathBuf>,
    /// What happens to deliveries while nobody takes the audit lines and their queue is full.
    #[arg(long, value_enum, default_value_t = AuditWhenFull::Refuse)]
    audit_when_full: AuditWhenFull,
    /// Maximum memory of audit lines that wait to be written, in bytes.
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(u32).range(64 << 10..=1 << 30))]
    audit_queue_bytes: u32,
    /// How many threads serve connections. Default: as many as there are processors, or as the limit of the container allows.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Format of the log, which goes to standard error. The environment variable `RUST_LOG` sets the level.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Why the edge could not run.
#[derive(Debug, Error)]
pub enum EdgeError {
    /// There is no access to a cluster.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The webhook gateway failed.
    #[error(transparent)]
    Webhooks(#[from] GatewayError),
    /// The token issuer failed.
    #[error(transparent)]
    Tokens(#[from] RunError),
}

/// Runs the role until the process is asked to stop.
pub async fn run(args: Args) -> Result<(), EdgeError> {
    process::ignore_signals()?;
    let config = process::cluster().await?;
    match args.serve {
        Role::Webhooks => Box::pin(webhook::run::run(config, args.into(), process::stop_requested())).await?,
        Role::Tokens => {
            let addresses = AddressPolicy::trusted(args.loopback_address);
            Box::pin(tokens::run::run(config, args.role(), addresses, process::stop_requested())).await?;
        }
    }
    Ok(())
}

impl Args {
    /// What every role is started with.
    fn role(&self) -> role::Options {
        let threads =
            self.threads.map_or_else(|| available_parallelism().ok(), |count| NonZeroUsize::new(count.into()));
        role::Options {
            namespace: self.namespace.clone(),
            replica: self.identity.clone().unwrap_or_else(process::default_identity),
            pod_uid: self.pod_uid.clone(),
            certificates: CertificateSecrets {
                own: self.certificate_secret.clone(),
                serving: self.serving_certificate_secrets.clone(),
            },
            listen: self.listen,
            listen_metrics: self.listen_metrics,
            audit: AuditOptions {
                file: self.audit_log.clone(),
                max_queued: self.audit_queue_bytes as usize,
                when_full: match self.audit_when_full {
                    AuditWhenFull::Refuse => WhenFull::Refuse,
                    AuditWhenFull::Lose => WhenFull::Lose,
                },
            },
            threads: threads.unwrap_or(NonZeroUsize::MIN),
        }
    }
}

impl From<Args> for Options {
    fn from(args: Args) -> Self {
        let trusted = AddressPolicy::trusted(args.loopback_address);
        Self {
            role: args.role(),
            routing: RoutingConfig {
                cluster_domain: args.cluster_domain,
                service_address: args.service_address,
                own_ports: vec![args.listen.port(), args.listen_metrics.port()],
                destinations: args.allowed_destinations.into_iter().collect(),
                brokers: trusted.clone(),
            },
            redis_url: args.redis_url,
            redis_addresses: trusted,
        }
    }
}

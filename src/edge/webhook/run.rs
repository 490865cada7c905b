//! Runs the webhook gateway as a process: `credence edge --serve webhooks`.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::deliver::object::Objects;
use super::gateway::Gateway;
use super::metrics::Metrics;
use super::replay::{InvalidRedisUrl, Redis};
use super::routing::RoutingConfig;
use super::tidy::tidy_forever;
use super::watch as routes;
use crate::domain::address_policy::AddressPolicy;
use crate::edge::certificates;
use crate::edge::front::{DRAIN_TIMEOUT, FLUSH_TIMEOUT};
use crate::edge::report;
use crate::edge::role::{self, RunError};
use crate::kubernetes::health::Health;

/// How long a stop takes at most.
pub const MAX_STOP: Duration = report::WITHDRAW_TIMEOUT.saturating_add(DRAIN_TIMEOUT).saturating_add(FLUSH_TIMEOUT);

/// What the gateway is started with.
pub struct Options {
    /// What every role is started with.
    pub role: role::Options,
    /// How Services and destinations are reached.
    pub routing: RoutingConfig,
    /// URL of the Redis with the delivery history.
    pub redis_url: Option<String>,
    /// Which addresses it may have.
    pub redis_addresses: AddressPolicy,
}

/// Why the gateway could not run.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// As any role.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The URL of Redis is invalid.
    #[error("invalid URL of Redis")]
    Redis(#[from] InvalidRedisUrl),
}

/// Runs the gateway until `stop_requested` is ready; then what was accepted is finished. SIGHUP opens the audit log anew.
///
/// # Errors
/// Why it could not start, or which part of it ended unexpectedly.
pub async fn run(
    config: kube::Config,
    options: Options,
    stop_requested: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    let namespace = &options.role.namespace;
    let client_error = |_| RunError::Client;
    let client = kube::Client::try_from(config.clone()).map_err(client_error)?;
    let objects = Objects::new(config, client.clone(), namespace).map_err(client_error)?;
    let redis = options.redis_url.as_deref().map(|url| Redis::new(url, &options.redis_addresses)).transpose()?;
    let metrics = Metrics::default();
    let (audit, workers) = options.role.start(&metrics.front)?;
    let gateway = Arc::new(Gateway::new(metrics, workers, options.routing.clone(), audit, redis, objects));
    let health = Arc::new(Health::default());
    for part in [routes::ROUTES].into_iter().chain(certificates::PARTS) {
        health.starting(part);
    }
    let following = async {
        tokio::join!(
            routes::follow(&gateway, client.clone(), namespace, &options.role.certificates, health.clone()),
            report::publish(client.clone(), &options.role, gateway.routes.wait_until_listed(), || gateway.report()),
            tidy_forever(&gateway),
            gateway.history.watch_redis(),
        );
    };
    let withdrawing = report::withdraw(client.clone(), &options.role);
    role::serve(gateway.clone(), &options.role, health.clone(), following, stop_requested, withdrawing).await?;
    Ok(())
}

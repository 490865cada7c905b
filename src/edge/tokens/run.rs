//! Runs the issuer as a process: `credence edge --serve tokens`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::key_sets::KeySets;
use super::metrics::Metrics;
use super::service::TokenService;
use super::watch;
use crate::domain::address_policy::AddressPolicy;
use crate::edge::role::{self, RunError};
use crate::edge::{certificates, report};
use crate::kubernetes::health::Health;

/// How often memory of quiet networks is given back.
const TIDY: Duration = Duration::from_secs(1);

/// Runs the issuer until `stop_requested` is ready; then what was accepted is finished. Key sets are fetched from `addresses` only.
/// SIGHUP opens the audit log anew.
///
/// # Errors
/// Why it could not start, or which part of it ended unexpectedly.
pub async fn run(
    config: kube::Config,
    options: role::Options,
    addresses: AddressPolicy,
    stop_requested: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let client = kube::Client::try_from(config).map_err(|_| RunError::Client)?;
    let metrics = Metrics::default();
    let (audit, workers) = options.start(&metrics.front)?;
    let service = Arc::new(TokenService::new(metrics, workers, audit));
    let (key_sets, health) = (KeySets::new(addresses), Arc::new(Health::default()));
    for part in watch::PARTS.into_iter().chain(certificates::PARTS) {
        health.starting(part);
    }
    let following = async {
        tokio::join!(
            watch::follow(
                &service,
                client.clone(),
                &options.namespace,
                &options.certificates,
                &key_sets,
                health.clone()
            ),
            report::publish(client.clone(), &options, service.wait_until_listed(), || service.report()),
            tidy_forever(&service),
        );
    };
    let withdrawing = report::withdraw(client.clone(), &options);
    role::serve(service.clone(), &options, health.clone(), following, stop_requested, withdrawing).await
}

async fn tidy_forever(service: &TokenService) {
    loop {
        sleep(TIDY).await;
        service.tidy();
    }
}

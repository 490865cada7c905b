//! Looks up what a broker connection depends on: its policies, and the operator's credential, which is the one thing that
//! is read from the API server. Nothing is decided and nothing written here.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::controller::Controller;
use crate::api::{BrokerConnection, BrokerConnectionStatus, Reason};
use crate::brokers::kafka::KafkaConfig;
use crate::controllers::shared::kind::IndexKey;
use crate::domain::name::Name;
use crate::domain::refusal::Refusal;
use crate::kubernetes::error::Error;

/// Everything that the plan depends on.
pub struct Observed {
    pub connection: Arc<BrokerConnection>,
    /// Its status as it was written last.
    pub status: BrokerConnectionStatus,
    /// What it takes to connect, or why the operator's credential cannot be used.
    pub config: Result<KafkaConfig, Refusal>,
    /// The policies that have rights on the broker.
    pub users: Vec<String>,
    pub now: Timestamp,
}

impl Observed {
    /// Name of the connection.
    pub fn name(&self) -> &str {
        self.connection.metadata.name.as_deref().unwrap_or_default()
    }
}

/// Looks everything up.
///
/// # Errors
/// What the API server answered.
pub async fn observe(controller: &Controller, connection: Arc<BrokerConnection>) -> Result<Observed, Error> {
    let name = connection.metadata.name.as_deref().unwrap_or_default();
    let users =
        if connection.metadata.deletion_timestamp.is_some() { users(controller, name).await } else { Vec::new() };
    Ok(Observed {
        status: controller.handle.status(&connection),
        config: configure(controller, &connection).await?,
        users,
        now: Timestamp::now(),
        connection,
    })
}

/// The policies that have rights on a broker. Without a session only their statuses say it.
async fn users(controller: &Controller, name: &str) -> Vec<String> {
    if let Some(broker) = controller.brokers.get(name) {
        return broker.session.policies().await;
    }
    let policies = controller.policies.using(&IndexKey::cluster::<BrokerConnection>(name));
    let users = policies.filter(|policy| policy.status.as_ref().is_some_and(|status| !status.applied.is_empty()));
    users.map(|policy| Name::of(&policy).to_string()).collect()
}

async fn configure(
    controller: &Controller,
    connection: &BrokerConnection,
) -> Result<Result<KafkaConfig, Refusal>, Error> {
    let kafka = &connection.spec.kafka;
    let (namespace, name) = (&controller.settings.namespace, &kafka.admin_secret_ref.name);
    let Some(Secret { data: Some(data), .. }) = controller.certificates.read(namespace, name).await? else {
        let message = format!(
            "the Secret {name} does not exist in {namespace}; create it with tls.crt, tls.key and ca.crt of a \
             principal that has Alter and Describe on the cluster"
        );
        return Ok(Err(Refusal::new(Reason::AdminSecretNotFound, message)));
    };
    let text = |key: &str| data.get(key).map(|value| value.0.clone()).unwrap_or_default();
    let (metrics, broker) = (controller.metrics.clone(), connection.metadata.name.clone().unwrap_or_default());
    let on_request = Arc::new(move |request: &str, answered| metrics.broker_requested(&broker, request, answered));
    let (chain, key, ca) = (text("tls.crt"), text("tls.key"), text("ca.crt"));
    let config = KafkaConfig::new(
        &kafka.bootstrap_servers,
        &chain,
        &key,
        &ca,
        &controller.settings.broker_addresses,
        on_request,
    );
    let invalid = |why| Refusal::new(Reason::AdminSecretInvalid, format!("the Secret {name}: {why}"));
    Ok(config.map_err(invalid))
}

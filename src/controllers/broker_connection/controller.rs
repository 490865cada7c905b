//! What the controller of broker connections uses.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;

use super::records::ConfigMapRecords;
use crate::api::{BrokerConnection, TopicPolicy};
use crate::brokers::registry::Brokers;
use crate::controllers::settings::Settings;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::parts::{Certificates, Parts};
use crate::controllers::shared::signal::Signals;
use crate::domain::fence::Fence;
use crate::kubernetes::events::Events;
use crate::metrics::Metrics;

/// Keeps a connection until no policy has rights on its broker any more.
pub const FINALIZER: &str = "credence.dev/in-use";

/// The controller.
pub struct Controller {
    pub client: Client,
    pub records_since: Timestamp,
    pub handle: Handle<BrokerConnection>,
    pub policies: Handle<TopicPolicy>,
    pub certificates: Certificates,
    pub brokers: Arc<Brokers>,
    pub settings: Arc<Settings>,
    pub fence: Fence,
    pub events: Events,
    pub signals: Signals,
    pub metrics: Arc<Metrics>,
}

impl Controller {
    /// A controller of these parts.
    pub fn new(parts: &Parts) -> Self {
        Self {
            client: parts.client.clone(),
            records_since: parts.records_since,
            handle: parts.handles.of(),
            policies: parts.handles.of(),
            certificates: parts.certificates.clone(),
            brokers: parts.brokers.clone(),
            settings: parts.settings.clone(),
            fence: parts.fence.clone(),
            events: parts.events.clone(),
            signals: parts.signals.clone(),
            metrics: parts.metrics.clone(),
        }
    }

    /// What was applied to the broker of a connection.
    pub fn record_store(&self, broker: &str) -> ConfigMapRecords {
        ConfigMapRecords::new(self.client.clone(), &self.settings.namespace, broker, self.records_since)
    }
}

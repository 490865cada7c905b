//! What the controller of identities uses.

use std::sync::Arc;

use jiff::Timestamp;

use super::login::Logins;
use crate::api::{BrokerConnection, ServiceIdentity, TrustDomain};
use crate::brokers::registry::Brokers;
use crate::controllers::settings::Settings;
use crate::controllers::shared::authorities::Authorities;
use crate::controllers::shared::claims::NameClaims;
use crate::controllers::shared::gate::RotationGate;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::namespaces::Namespaces;
use crate::controllers::shared::parts::{Certificates, Parts};
use crate::controllers::shared::rotation_policies::RotationPolicies;
use crate::controllers::shared::signal::Signals;
use crate::controllers::shared::token_calls::TokenCalls;
use crate::kubernetes::events::Events;
use crate::metrics::Metrics;

/// The controller.
pub struct Controller {
    pub handle: Handle<ServiceIdentity>,
    pub trust_domains: Handle<TrustDomain>,
    pub connections: Handle<BrokerConnection>,
    pub rotation: RotationPolicies,
    pub namespaces: Namespaces,
    pub claims: Arc<NameClaims>,
    /// Since when names are recorded.
    pub records_since: Timestamp,
    pub certificates: Certificates,
    pub token_calls: Arc<TokenCalls>,
    pub authorities: Arc<Authorities>,
    pub brokers: Arc<Brokers>,
    pub gate: Arc<RotationGate>,
    pub logins: Logins,
    pub settings: Arc<Settings>,
    pub events: Events,
    pub signals: Signals,
    pub metrics: Arc<Metrics>,
}

impl Controller {
    /// A controller of these parts.
    pub fn new(parts: &Parts) -> Self {
        Self {
            handle: parts.handles.of(),
            trust_domains: parts.handles.of(),
            connections: parts.handles.of(),
            rotation: RotationPolicies::new(parts),
            namespaces: parts.namespaces.clone(),
            claims: parts.claims.clone(),
            records_since: parts.records_since,
            certificates: parts.certificates.clone(),
            token_calls: parts.token_calls.clone(),
            authorities: parts.authorities.clone(),
            brokers: parts.brokers.clone(),
            gate: parts.gate.clone(),
            logins: Logins::new(parts.signals.clone()),
            settings: parts.settings.clone(),
            events: parts.events.clone(),
            signals: parts.signals.clone(),
            metrics: parts.metrics.clone(),
        }
    }
}

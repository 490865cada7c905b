//! What the controller of webhooks uses, one for each of the two kinds.

use std::sync::Arc;

use jiff::Timestamp;

use crate::api::ServiceIdentity;
use crate::brokers::registry::Brokers;
use crate::controllers::settings::Settings;
use crate::controllers::shared::claims::NameClaims;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::namespaces::Namespaces;
use crate::controllers::shared::parts::{Certificates, Parts, WebhookSecrets};
use crate::controllers::shared::replicas::Replicas;
use crate::controllers::shared::rotation_policies::RotationPolicies;
use crate::controllers::shared::services::Services;
use crate::controllers::shared::sweep::SweepSignal;
use crate::controllers::shared::webhook::Webhook;

/// Keeps a webhook until the edge does not serve it any more.
pub const FINALIZER: &str = "credence.dev/withdraw-route";

/// The controller.
pub struct Controller<W: Webhook> {
    pub handle: Handle<W>,
    pub identities: Handle<ServiceIdentity>,
    pub rotation: RotationPolicies,
    pub namespaces: Namespaces,
    pub claims: Arc<NameClaims>,
    pub brokers: Arc<Brokers>,
    pub certificates: Certificates,
    pub secrets: WebhookSecrets,
    pub replicas: Arc<Replicas>,
    pub services: Arc<Services>,
    pub records_since: Timestamp,
    pub sweep: SweepSignal,
    pub settings: Arc<Settings>,
}

impl<W: Webhook> Controller<W> {
    /// A controller of these parts.
    pub fn new(parts: &Parts) -> Self {
        Self {
            handle: parts.handles.of(),
            identities: parts.handles.of(),
            rotation: RotationPolicies::new(parts),
            namespaces: parts.namespaces.clone(),
            claims: parts.claims.clone(),
            brokers: parts.brokers.clone(),
            certificates: parts.certificates.clone(),
            secrets: parts.webhook_secrets.clone(),
            replicas: parts.replicas.clone(),
            services: parts.services.clone(),
            records_since: parts.records_since,
            sweep: parts.sweep.clone(),
            settings: parts.settings.clone(),
        }
    }
}

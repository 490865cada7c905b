//! What the controller of rotation policies uses.

use std::sync::Arc;

use crate::api::{RotationPolicy, ServiceIdentity, TrustDomain, WebhookDestination, WebhookEndpoint};
use crate::controllers::settings::Settings;
use crate::controllers::shared::gate::RotationGate;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::parts::{Parts, WebhookSecrets};
use crate::controllers::shared::rotation_policies::RotationPolicies;

/// The controller.
#[derive(Clone)]
pub struct Controller {
    pub handle: Handle<RotationPolicy>,
    pub identities: Handle<ServiceIdentity>,
    pub trust_domains: Handle<TrustDomain>,
    pub endpoints: Handle<WebhookEndpoint>,
    pub destinations: Handle<WebhookDestination>,
    pub policies: RotationPolicies,
    pub webhook_secrets: WebhookSecrets,
    pub gate: Arc<RotationGate>,
    pub settings: Arc<Settings>,
}

impl Controller {
    /// A controller of these parts.
    pub fn new(parts: &Parts) -> Self {
        Self {
            handle: parts.handles.of(),
            identities: parts.handles.of(),
            trust_domains: parts.handles.of(),
            endpoints: parts.handles.of(),
            destinations: parts.handles.of(),
            policies: RotationPolicies::new(parts),
            webhook_secrets: parts.webhook_secrets.clone(),
            gate: parts.gate.clone(),
            settings: parts.settings.clone(),
        }
    }
}

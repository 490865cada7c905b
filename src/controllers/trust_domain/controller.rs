//! What the controller of trust domains uses.

use std::sync::Arc;

use crate::api::{ServiceIdentity, TrustDomain};
use crate::controllers::settings::Settings;
use crate::controllers::shared::authorities::Authorities;
use crate::controllers::shared::claims::NameClaims;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::namespaces::Namespaces;
use crate::controllers::shared::parts::{Bundles, Certificates, OperatorSecrets, Parts};
use crate::controllers::shared::replicas::Replicas;
use crate::controllers::shared::rotation_policies::RotationPolicies;
use crate::controllers::shared::signal::Signals;
use crate::controllers::shared::token_calls::TokenSecrets;
use crate::kubernetes::events::Events;
use crate::metrics::Metrics;

/// Keeps an authority from being deleted while identities that it serves still exist.
pub const FINALIZER: &str = "credence.dev/in-use";

/// The controller.
#[derive(Clone)]
pub struct Controller {
    pub handle: Handle<TrustDomain>,
    pub identities: Handle<ServiceIdentity>,
    pub claims: Arc<NameClaims>,
    pub namespaces: Namespaces,
    pub operator_secrets: OperatorSecrets,
    pub certificates: Certificates,
    pub bundles: Bundles,
    pub token_secrets: TokenSecrets,
    pub issuer_replicas: Arc<Replicas>,
    pub rotation: RotationPolicies,
    pub authorities: Arc<Authorities>,
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
            identities: parts.handles.of(),
            claims: parts.claims.clone(),
            namespaces: parts.namespaces.clone(),
            operator_secrets: parts.operator_secrets.clone(),
            certificates: parts.certificates.clone(),
            bundles: parts.bundles.clone(),
            token_secrets: parts.token_secrets.clone(),
            issuer_replicas: parts.issuer_replicas.clone(),
            rotation: RotationPolicies::new(parts),
            authorities: parts.authorities.clone(),
            settings: parts.settings.clone(),
            events: parts.events.clone(),
            signals: parts.signals.clone(),
            metrics: parts.metrics.clone(),
        }
    }
}

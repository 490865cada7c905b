//! What the controller of topic policies uses.

use std::sync::Arc;

use crate::api::{BrokerConnection, ServiceIdentity, TopicPolicy, TrustDomain};
use crate::brokers::registry::Brokers;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::namespaces::Namespaces;
use crate::controllers::shared::parts::Parts;

/// Keeps a policy until its rights are revoked.
pub const FINALIZER: &str = "credence.dev/revoke-grants";

/// The controller.
#[derive(Clone)]
pub struct Controller {
    pub handle: Handle<TopicPolicy>,
    pub connections: Handle<BrokerConnection>,
    pub identities: Handle<ServiceIdentity>,
    pub trust_domains: Handle<TrustDomain>,
    pub namespaces: Namespaces,
    pub brokers: Arc<Brokers>,
}

impl Controller {
    /// A controller of these parts.
    pub fn new(parts: &Parts) -> Self {
        Self {
            handle: parts.handles.of(),
            connections: parts.handles.of(),
            identities: parts.handles.of(),
            trust_domains: parts.handles.of(),
            namespaces: parts.namespaces.clone(),
            brokers: parts.brokers.clone(),
        }
    }
}

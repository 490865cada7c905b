//! The rotation policies of the cluster.

use std::sync::Arc;

use super::handle::Handle;
use super::parts::Parts;
use crate::api::RotationPolicy;
use crate::controllers::settings::Settings;

/// The rotation policies of the cluster.
#[derive(Clone)]
pub struct RotationPolicies {
    handle: Handle<RotationPolicy>,
    settings: Arc<Settings>,
}

impl RotationPolicies {
    /// The rotation policies of these parts.
    #[must_use]
    pub fn new(parts: &Parts) -> Self {
        Self { handle: parts.handles.of(), settings: parts.settings.clone() }
    }

    /// The policies that may be attached to objects of a namespace: its own, and those of the operator's namespace.
    #[must_use]
    pub fn policies_for(&self, namespace: &str) -> Vec<RotationPolicy> {
        let (store, operator) = (self.handle.store(), self.settings.namespace.as_str());
        let everywhere = (operator != namespace).then(|| store.valid(Some(operator)));
        store.valid(Some(namespace)).chain(everywhere.into_iter().flatten()).collect()
    }
}

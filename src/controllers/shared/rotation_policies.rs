//! The rotation policies of the cluster.

use std::sync::Arc;

use super::handle::Handle;
use super::parts::Parts;
use crate::api::RotationPolicy;
use crate::controllers::settings::Settings;
use crate::domain::name::Name;

/// How many rotation policies of a namespace count: the first by name. Whoever decides about an object reads all of them.
/// Those in the operator's namespace, which the platform writes, all count.
pub const MAX_POLICIES: usize = 256;

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

    /// Whether a policy is one too many of its namespace.
    #[must_use]
    pub fn exceeds(&self, policy: &Name) -> bool {
        if *policy.namespace == *self.settings.namespace {
            return false;
        }
        let names = self.handle.store().names(Some(&policy.namespace));
        names.iter().position(|name| name == policy).is_some_and(|position| position >= MAX_POLICIES)
    }

    /// The policies that may be attached to objects of a namespace: its own, and those of the operator's namespace.
    #[must_use]
    pub fn policies_for(&self, namespace: &str) -> Vec<RotationPolicy> {
        let (store, operator) = (self.handle.store(), self.settings.namespace.as_str());
        let limit = if namespace == operator { usize::MAX } else { MAX_POLICIES };
        let own = store.iter(Some(namespace)).take(limit).filter_map(|(_, policy)| policy.ok());
        let everywhere = (operator != namespace).then(|| store.valid(Some(operator)));
        own.chain(everywhere.into_iter().flatten()).collect()
    }
}

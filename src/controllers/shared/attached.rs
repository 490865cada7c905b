//! Which rotation policy is in effect for an object.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::handle::Handle;
use super::parts::Parts;
use crate::api::{RotationPolicy, RotationPolicySpec, RotationTargetKind};
use crate::controllers::settings::Settings;
use crate::domain::name::Name;
use crate::domain::rotation::{Attachment, attachment};

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

/// The policy in effect for an object; `None` stands for the built-in rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyInEffect(pub Option<Name>);

impl fmt::Display for PolicyInEffect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => name.fmt(formatter),
            None => formatter.write_str("built-in"),
        }
    }
}

/// The rules in effect for an object, and their policy.
#[derive(Clone, Debug)]
pub struct InEffect<R> {
    /// The rules.
    pub rules: R,
    /// The policy.
    pub policy: PolicyInEffect,
}

/// Finds the rules in effect for an object. The closest attachment wins, its own namespace before the operator's, the
/// older policy among equals. A policy that is not valid has no effect.
#[must_use]
pub fn in_effect<R: Default, E>(
    policies: &[RotationPolicy],
    kind: RotationTargetKind,
    object: &ObjectMeta,
    read: impl Fn(&RotationPolicySpec) -> Result<R, E>,
) -> InEffect<R> {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let name = object.name.as_deref().unwrap_or_default();
    let labels = object.labels.clone().unwrap_or_default();
    let rank = |policy: &RotationPolicy| -> Option<(bool, Attachment)> {
        let from = policy.metadata.namespace.as_deref().unwrap_or_default();
        Some((from != namespace, attachment(&policy.spec.targets, kind, name, &labels)?))
    };
    let age = |policy: &RotationPolicy| policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let attached = policies.iter().filter_map(|policy| Some((rank(policy)?, age(policy), Name::of(policy), policy)));
    let mut candidates: Vec<_> = attached.collect();
    candidates.sort_by(|one, other| (&one.0, &one.1, &one.2).cmp(&(&other.0, &other.1, &other.2)));
    let valid = |(_, _, name, policy): (_, _, Name, &RotationPolicy)| Some((read(&policy.spec).ok()?, name));
    match candidates.into_iter().find_map(valid) {
        Some((rules, name)) => InEffect { rules, policy: PolicyInEffect(Some(name)) },
        None => InEffect { rules: R::default(), policy: PolicyInEffect(None) },
    }
}

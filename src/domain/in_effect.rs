//! Which rotation policy is in effect for an object.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::name::Name;
use super::rotation::{Attachment, attachment};
use crate::api::{RotationPolicy, RotationPolicySpec, RotationTargetKind};

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

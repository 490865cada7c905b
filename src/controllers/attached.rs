//! Which rotation policy is in force for an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::context::Context;
use crate::api::{RotationPolicy, RotationPolicySpec, RotationTargetKind};
use crate::domain::rotation::{Attachment, attachment};
use crate::kubernetes::display_name;

/// The rotation policies that may be attached to objects of a namespace: its own, and the operator's.
pub fn policies_for(context: &Context, namespace: &str) -> Vec<RotationPolicy> {
    let operator = context.settings.namespace.as_str();
    let everywhere = (operator != namespace).then(|| context.stores.rotation_policies.valid(Some(operator)));
    context.stores.rotation_policies.valid(Some(namespace)).chain(everywhere.into_iter().flatten()).collect()
}

/// The rules in force for an object, and the name of their policy. The closest attachment wins, its own namespace before
/// the operator's, the older policy among equals. A policy that is not valid is not in force.
#[must_use]
pub fn rules_for<R: Default>(
    policies: &[RotationPolicy],
    kind: RotationTargetKind,
    object: &ObjectMeta,
    read: impl Fn(&RotationPolicySpec) -> Result<R, String>,
) -> (R, String) {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let name = object.name.as_deref().unwrap_or_default();
    let labels = object.labels.clone().unwrap_or_default();
    let rank = |policy: &RotationPolicy| -> Option<(bool, Attachment)> {
        let from = policy.metadata.namespace.as_deref().unwrap_or_default();
        Some((from != namespace, attachment(&policy.spec.targets, kind, name, &labels)?))
    };
    let age = |policy: &RotationPolicy| policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut candidates: Vec<_> =
        policies.iter().filter_map(|policy| Some((rank(policy)?, age(policy), display_name(policy), policy))).collect();
    candidates.sort_by(|one, other| (&one.0, &one.1, &one.2).cmp(&(&other.0, &other.1, &other.2)));
    candidates
        .into_iter()
        .find_map(|(_, _, name, policy)| Some((read(&policy.spec).ok()?, name)))
        .unwrap_or_else(|| (R::default(), "built-in".to_owned()))
}

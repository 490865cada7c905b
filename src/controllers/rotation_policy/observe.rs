//! Counts the targets of a rotation policy. Reads stores only; nothing is decided and nothing written here.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::controller::Controller;
use crate::api::{RotationPolicy, RotationPolicySpec, RotationPolicyStatus, RotationTargetKind, ServiceIdentity};
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::kind::ManagedKind;
use crate::controllers::shared::webhook::{KeySource, Webhook, key_secret};
use crate::domain::in_effect::{PolicyInEffect, in_effect};
use crate::domain::invalid_field::InvalidField;
use crate::domain::key_set::{KeyRotation, signing};
use crate::domain::name::Name;
use crate::domain::rotation::Rules;

/// The objects that a policy is in effect for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// How many there are.
    pub all: u32,
    /// How many still use material from before `issuedBefore`.
    pub outstanding: u32,
}

/// Everything that the plan depends on.
pub struct Observed {
    pub policy: Arc<RotationPolicy>,
    /// Its status as it was written last.
    pub status: RotationPolicyStatus,
    /// What it says, or what is wrong with it.
    pub rules: Result<Rules, InvalidField>,
    pub targets: Targets,
    /// The identities that are being renewed.
    pub in_progress: Vec<Name>,
    pub now: Timestamp,
}

/// Looks everything up.
pub fn observe(controller: &Controller, policy: Arc<RotationPolicy>) -> Observed {
    let now = Timestamp::now();
    let rules = Rules::new(&policy.spec);
    // Targets of a policy without effect need not be counted.
    let targets = rules.as_ref().map(|rules| count(controller, &policy, rules, now)).unwrap_or_default();
    Observed {
        status: controller.handle.status(&policy),
        rules,
        targets,
        in_progress: controller.gate.in_progress(&PolicyInEffect(Some(Name::of(&*policy)))),
        now,
        policy,
    }
}

fn count(controller: &Controller, policy: &RotationPolicy, rules: &Rules, now: Timestamp) -> Targets {
    let before = rules.issued_before.filter(|before| *before <= now);
    let kind = RotationTargetKind::ServiceIdentity;
    let identities = attached(controller, &controller.identities, policy, kind, Rules::new)
        .filter(|identity| identity.spec.authentication.mtls.is_some())
        .map(|identity| before.is_some_and(|before| is_older(&identity, before)));
    let endpoints = webhooks(controller, &controller.endpoints, policy, before);
    let destinations = webhooks(controller, &controller.destinations, policy, before);
    let mut targets = Targets::default();
    for is_outstanding in identities.chain(endpoints).chain(destinations) {
        targets.all = targets.all.saturating_add(1);
        targets.outstanding += u32::from(is_outstanding);
    }
    targets
}

/// The objects of a kind that the policy is in effect for.
fn attached<'a, K: ManagedKind, R: Default + 'a>(
    controller: &'a Controller,
    handle: &'a Handle<K>,
    policy: &RotationPolicy,
    kind: RotationTargetKind,
    read: fn(&RotationPolicySpec) -> Result<R, InvalidField>,
) -> impl Iterator<Item = K> + 'a {
    let own = policy.metadata.namespace.as_deref().filter(|namespace| *namespace != controller.settings.namespace);
    let name = PolicyInEffect(Some(Name::of(policy)));
    let mut policies: HashMap<String, Vec<RotationPolicy>> = HashMap::new();
    handle.store().valid(own).filter(move |object| {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let policies =
            policies.entry(namespace).or_insert_with_key(|namespace| controller.policies.policies_for(namespace));
        in_effect(policies, kind, object.meta(), read).policy == name
    })
}

/// The webhooks with generated keys that the policy is in effect for: whether each still signs with a key from before.
fn webhooks<'a, W: Webhook + ManagedKind>(
    controller: &'a Controller,
    handle: &'a Handle<W>,
    policy: &RotationPolicy,
    before: Option<Timestamp>,
) -> impl Iterator<Item = bool> + 'a {
    attached(controller, handle, policy, W::ROTATION, KeyRotation::new)
        .filter(|webhook| matches!(webhook.key_source(), KeySource::Generated(_)))
        .map(move |webhook| before.is_some_and(|before| signs_with_older(controller, &webhook, before)))
}

fn signs_with_older<W: Webhook>(controller: &Controller, webhook: &W, before: Timestamp) -> bool {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let record = controller.webhook_secrets.get(namespace, &key_secret(webhook));
    let facts = record.and_then(|record| record.facts.clone().ok()).unwrap_or_default();
    signing(&facts.keys).and_then(|key| key.not_before).is_some_and(|made| made < before)
}

fn is_older(identity: &ServiceIdentity, before: Timestamp) -> bool {
    let Some(status) = &identity.status else { return false };
    let accounts = status.brokers.iter().filter_map(|account| account.certificate.as_ref());
    let mut issued = status.certificate.iter().chain(accounts).filter_map(|certificate| certificate.issued_at.as_ref());
    issued.any(|issued| issued.0 < before)
}

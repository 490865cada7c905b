//! Counts the targets of a rotation policy. Reads stores only; nothing is decided and nothing written here.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::controller::Controller;
use crate::api::{
    RotationPolicy, RotationPolicySpec, RotationPolicyStatus, RotationTargetKind, ServiceIdentity, TokenKeyPhase,
};
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::kind::ManagedKind;
use crate::controllers::shared::webhook::{KeySource, Webhook, key_secret};
use crate::domain::in_effect::{PolicyInEffect, Requests, in_effect, is_attached};
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
    /// Whether it is one too many of its namespace.
    pub exceeds: bool,
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
    let exceeds = controller.policies.exceeds(&Name::of(&*policy));
    // Targets of a policy without effect need not be counted.
    let effective = rules.as_ref().ok().filter(|_| !exceeds);
    let targets = effective.map(|rules| count(controller, &policy, rules, now)).unwrap_or_default();
    Observed {
        status: controller.handle.status(&policy),
        exceeds,
        rules,
        targets,
        in_progress: controller.gate.in_progress(&PolicyInEffect(Some(Name::of(&*policy)))),
        now,
        policy,
    }
}

fn count(controller: &Controller, policy: &RotationPolicy, rules: &Rules, now: Timestamp) -> Targets {
    let before = rules.issued_before.iter().copied().filter(|before| *before <= now).max();
    let kind = RotationTargetKind::ServiceIdentity;
    let identities = attached(controller, &controller.identities, policy, kind, Rules::new)
        .filter(|(identity, _)| identity.spec.authentication.mtls.is_some())
        .map(|(identity, counts)| (counts, before.is_some_and(|before| is_older(&identity, before))));
    let endpoints = webhooks(controller, &controller.endpoints, policy, before);
    let destinations = webhooks(controller, &controller.destinations, policy, before);
    let issuers = issuers(controller, policy, before);
    let mut targets = Targets::default();
    for (is_in_effect, is_outstanding) in identities.chain(endpoints).chain(destinations).chain(issuers) {
        // What was requested is outstanding wherever the policy is attached; another one may give the other rules.
        targets.all = targets.all.saturating_add(u32::from(is_in_effect || before.is_some()));
        targets.outstanding += u32::from(is_outstanding);
    }
    targets
}

/// The objects of a kind that the policy is attached to, and whether it is in effect for each.
fn attached<'a, K: ManagedKind, R: Requests + 'a>(
    controller: &'a Controller,
    handle: &'a Handle<K>,
    policy: &RotationPolicy,
    kind: RotationTargetKind,
    read: fn(&RotationPolicySpec) -> Result<R, InvalidField>,
) -> impl Iterator<Item = (K, bool)> + 'a {
    let own = policy.metadata.namespace.as_deref().filter(|namespace| *namespace != controller.settings.namespace);
    let (policy, name) = (policy.clone(), PolicyInEffect(Some(Name::of(policy))));
    let mut policies: HashMap<String, Vec<RotationPolicy>> = HashMap::new();
    handle.store().valid(own).filter(move |object| is_attached(&policy, kind, object.meta())).map(move |object| {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let policies =
            policies.entry(namespace).or_insert_with_key(|namespace| controller.policies.policies_for(namespace));
        let is_in_effect = in_effect(policies, kind, object.meta(), read).policy == name;
        (object, is_in_effect)
    })
}

/// The webhooks with generated keys that the policy is in effect for: whether each still signs with a key from before.
fn webhooks<'a, W: Webhook + ManagedKind>(
    controller: &'a Controller,
    handle: &'a Handle<W>,
    policy: &RotationPolicy,
    before: Option<Timestamp>,
) -> impl Iterator<Item = (bool, bool)> + 'a {
    attached(controller, handle, policy, W::ROTATION, KeyRotation::new)
        .filter(|(webhook, _)| matches!(webhook.key_source(), KeySource::Generated(_)))
        .map(move |(webhook, counts)| {
            (counts, before.is_some_and(|before| signs_with_older(controller, &webhook, before)))
        })
}

/// The trust domains that issue tokens, for a policy of the operator's namespace: whether each still signs with a key from before.
fn issuers(
    controller: &Controller,
    policy: &RotationPolicy,
    before: Option<Timestamp>,
) -> impl Iterator<Item = (bool, bool)> {
    let is_platforms = policy.metadata.namespace.as_deref() == Some(&controller.settings.namespace);
    let kind = RotationTargetKind::TrustDomain;
    let attached =
        is_platforms.then(|| attached(controller, &controller.trust_domains, policy, kind, KeyRotation::new));
    attached.into_iter().flatten().filter(|(domain, _)| domain.spec.tokens.is_some()).map(move |(domain, counts)| {
        let keys = domain.status.iter().flat_map(|status| &status.token_keys);
        let mut signs = keys.filter(|key| key.phase == TokenKeyPhase::Active);
        (counts, before.is_some_and(|before| signs.any(|key| key.published_since.0 < before)))
    })
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

//! `RotationPolicy`: checks it, and reports how far it has come. What it orders is carried out by the controllers of
//! its targets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Context;
use super::attached::{policies_for, rules_for};
use super::webhook::{KeySource, Webhook, key_secret};
use crate::api::{
    ConditionType, Conditions, Reason, RotationPolicy, RotationPolicySpec, RotationPolicyStatus, RotationTargetKind,
    ServiceIdentity, WebhookDestination, WebhookEndpoint,
};
use crate::domain::key_set::{Turning, signing};
use crate::domain::rotation::Rules;
use crate::kubernetes::display_name;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::Store;

/// How often a policy that still has something outstanding counts again.
const RECOUNT: Duration = Duration::from_secs(5);

/// Checks one policy and reports on it.
///
/// # Errors
/// What the API server said.
pub async fn reconcile(context: Arc<Context>, policy: Arc<RotationPolicy>) -> Result<Done, Error> {
    if policy.metadata.deletion_timestamp.is_some() {
        return Ok(Done::gone());
    }
    let current = context.statuses.rotation_policies.current(&*policy, policy.status.as_ref());
    let mut conditions = Conditions::new();
    let mut status = RotationPolicyStatus::default();
    let now = Timestamp::now();
    let mut next = None;
    match Rules::new(&policy.spec) {
        Err(message) => {
            conditions.unmet(ConditionType::Accepted, Reason::InvalidPolicy, format!("{message}; it is not in force"));
        }
        Ok(rules) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, "the spec is valid");
            let name = display_name(&*policy);
            let before = rules.issued_before.filter(|before| *before <= now);
            let stores = &context.stores;
            let identities =
                attached(&context, &stores.identities, &policy, RotationTargetKind::ServiceIdentity, Rules::new)
                    .filter(|identity| identity.spec.authentication.mtls.is_some())
                    .map(|identity| before.is_some_and(|before| is_older(&identity, before)));
            let endpoints = webhooks::<WebhookEndpoint>(&context, &policy, before);
            let destinations = webhooks::<WebhookDestination>(&context, &policy, before);
            for is_outstanding in identities.chain(endpoints).chain(destinations) {
                status.targets = status.targets.saturating_add(1);
                status.outstanding += u32::from(is_outstanding);
            }
            let mut in_progress = context.gate.in_progress(&name);
            in_progress.truncate(10);
            next = (status.outstanding > 0 || !in_progress.is_empty()).then_some(RECOUNT);
            next = next.or_else(|| Some(super::wait(now, rules.issued_before.filter(|before| *before > now)?)));
            status.in_progress = in_progress;
            closing(&rules, &status, &mut conditions);
        }
    }
    let message = format!("in force for {} objects", status.targets);
    conditions.conclude(message);
    status.observed_generation = policy.metadata.generation;
    status.conditions = conditions.merge(&current.conditions, policy.metadata.generation, now);
    context.statuses.rotation_policies.write(&context.client, &*policy, &current, &status).await?;
    context.events.transition(&*policy, &current.conditions, &conditions).await;
    Ok(Done::with(&conditions, next))
}

fn closing(rules: &Rules, status: &RotationPolicyStatus, conditions: &mut Conditions) {
    if rules.suspend {
        let message = "renewals are suspended; only what would expire is renewed. Unset spec.suspend to go on";
        conditions.unmet(ConditionType::Rotated, Reason::Suspended, message);
    } else if status.outstanding > 0 {
        let message = format!(
            "{} of {} objects still use a certificate or a key from before issuedBefore; in the middle of it: {}",
            status.outstanding,
            status.targets,
            if status.in_progress.is_empty() { "none".to_owned() } else { status.in_progress.join(", ") }
        );
        conditions.unmet(ConditionType::Rotated, Reason::RenewalPending, message);
    } else {
        conditions.met(ConditionType::Rotated, Reason::Renewed, "nothing is outstanding");
    }
}

/// The objects of a kind that the policy is in force for.
fn attached<'a, K, R>(
    context: &'a Context,
    store: &'a Store<K>,
    policy: &RotationPolicy,
    kind: RotationTargetKind,
    read: fn(&RotationPolicySpec) -> Result<R, String>,
) -> impl Iterator<Item = K> + 'a
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + 'a,
    R: Default + 'a,
{
    let name = display_name(policy);
    let own = policy.metadata.namespace.as_deref().filter(|namespace| *namespace != context.settings.namespace);
    let mut policies: HashMap<String, Vec<RotationPolicy>> = HashMap::new();
    store.valid(own).filter(move |object| {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let policies = policies.entry(namespace).or_insert_with_key(|namespace| policies_for(context, namespace));
        rules_for(policies, kind, object.meta(), read).1 == name
    })
}

/// The webhooks whose keys the operator makes, as far as the policy is in force for them: whether each still signs with a key
/// from before.
fn webhooks<'a, W: Webhook>(
    context: &'a Context,
    policy: &RotationPolicy,
    before: Option<Timestamp>,
) -> impl Iterator<Item = bool> + 'a {
    attached(context, W::store(&context.stores), policy, W::ROTATION, Turning::new)
        .filter(|webhook| matches!(webhook.key_source(), KeySource::Generated(_)))
        .map(move |webhook| before.is_some_and(|before| signs_with_older(context, &webhook, before)))
}

fn signs_with_older<W: Webhook>(context: &Context, webhook: &W, before: Timestamp) -> bool {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let record = context.webhook_secrets.get(namespace, &key_secret(webhook));
    let facts = record.and_then(|record| record.facts.clone().ok()).unwrap_or_default();
    signing(&facts.keys).and_then(|key| key.not_before).is_some_and(|made| made < before)
}

fn is_older(identity: &ServiceIdentity, before: Timestamp) -> bool {
    let Some(status) = &identity.status else { return false };
    let accounts = status.brokers.iter().filter_map(|account| account.certificate.as_ref());
    let mut issued = status.certificate.iter().chain(accounts).filter_map(|certificate| certificate.issued_at.as_ref());
    issued.any(|issued| issued.0 < before)
}

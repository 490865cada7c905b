//! Carries the plan of a webhook out: keys first, then the route, then the status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::context::Context;
use super::super::{retry_in, wait};
use super::keys::KEYS;
use super::observe::{Observed, key_secret};
use super::plan::Plan;
use super::settle::{self, Keys};
use super::{FINALIZER, Webhook, program};
use crate::api::{ConditionType, Conditions, Reason, WebhookKeyState, WebhookKeyStatus, WebhookStatus};
use crate::contract::report::ServedRoute;
use crate::domain::key_set::{self, KeyRecord};
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::status::{has_finalizer, set_finalizer};

/// How soon something is tried again that no watch would tell of, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

pub async fn apply<W: Webhook>(
    context: &Arc<Context>,
    webhook: &W,
    observed: &Observed<W>,
    plan: Plan,
) -> Result<Done, Error> {
    // A route without a finalizer would be served after its webhook is gone.
    if !set_finalizer(&context.client, webhook, FINALIZER, true).await? {
        return Ok(Done::gone());
    }
    let mut conditions = Conditions::new();
    let mut status = WebhookStatus { protection: Some(protection(observed)), ..WebhookStatus::default() };
    let keys = match plan {
        Plan::Refuse(reason, message) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            Keys::default()
        }
        Plan::Generated(decision) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, "the spec agrees with what it names");
            status.key_secret = Some(key_secret(webhook));
            settle::generated(context, webhook, observed, decision).await?
        }
        Plan::External(secret) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, "the spec agrees with what it names");
            status.key_secret = Some(secret.clone());
            settle::external(context, webhook, &secret).await?
        }
    };
    if let Some((reason, message)) = &keys.problem {
        conditions.unmet(ConditionType::KeysReady, *reason, message.clone());
    }
    let route = match (keys.held, keys.records.is_empty()) {
        (true, _) => observed.route.clone(),
        (false, true) => None,
        (false, false) => program::program(context, webhook, observed, &keys, &mut conditions).await?,
    };
    let mut next = keys.next;
    if route.is_none() {
        program::withdraw(context, webhook).await?;
        next = Some(retry_in(&observed.status.conditions, ConditionType::Ready, observed.now, RETRY));
    }
    describe_keys(observed, &keys.records, &mut status, &mut conditions);
    describe_edges(observed, route.as_deref(), &mut status, &mut conditions);
    conditions.conclude(webhook.purpose());
    status.observed_generation = webhook.meta().generation;
    status.conditions = conditions.merge(&observed.status.conditions, webhook.meta().generation, observed.now);
    W::statuses(&context.statuses).write(&context.client, webhook, &observed.status, &status).await?;
    context.events.transition(webhook, &observed.status.conditions, &conditions).await;
    let changes = key_set::next_change(&keys.records, observed.now).map(|at| wait(observed.now, at));
    Ok(Done::with(&conditions, next.into_iter().chain(changes).min()))
}

/// What the webhook gives, in words, as it is served now.
fn protection<W: Webhook>(observed: &Observed<W>) -> String {
    let (gives, replicas) = (observed.webhook.protection(), observed.served.len());
    if observed.webhook.remembers_apart() && replicas > 1 {
        format!("{gives}; each of {replicas} replicas remembers for itself, so set replay.store to Redis")
    } else {
        gives.to_owned()
    }
}

fn describe_keys<W>(
    observed: &Observed<W>,
    records: &[KeyRecord],
    status: &mut WebhookStatus,
    conditions: &mut Conditions,
) {
    let verified = |id: &str| {
        let used = observed.served.values().flatten().filter_map(|served| served.used.get(id));
        used.max().and_then(|at| Timestamp::from_second(*at).ok())
    };
    let described = key_set::describe(records, observed.now).into_iter();
    status.keys = described.map(|key| WebhookKeyStatus { last_verified: verified(&key.id).map(Time), ..key }).collect();
    let live = |key: &&WebhookKeyStatus| matches!(key.state, WebhookKeyState::Active | WebhookKeyState::Retiring);
    let live = status.keys.iter().filter(live).count();
    status.live_keys = u32::try_from(live).unwrap_or(u32::MAX);
    if conditions.is_unmet() {
        return;
    }
    let secret = status.key_secret.as_deref().unwrap_or(KEYS);
    if live == 0 {
        let message = format!("no key of the Secret {secret} is valid now; add one");
        conditions.unmet(ConditionType::KeysReady, Reason::KeysInvalid, message);
    } else {
        let message = format!("{live} keys of the Secret {secret} are in use");
        conditions.met(ConditionType::KeysReady, Reason::KeysStored, message);
    }
}

fn describe_edges<W>(
    observed: &Observed<W>,
    route: Option<&str>,
    status: &mut WebhookStatus,
    conditions: &mut Conditions,
) {
    let serving = observed.served.iter().filter_map(|(replica, served)| Some((replica, served.as_ref()?)));
    status.replicas = serving.map(|(replica, served)| (replica.clone(), served.generation)).collect();
    let Some(route) = route else { return };
    let serves = |served: &Option<ServedRoute>| served.as_ref().is_some_and(|served| served.route == route);
    let behind = observed.served.iter().filter(|(_, served)| !serves(served)).map(|(replica, _)| replica.as_str());
    let behind: Vec<&str> = behind.collect();
    if observed.served.is_empty() {
        let message = "no replica of the edge has reported yet; see whether its pods run";
        conditions.unmet(ConditionType::Programmed, Reason::NotProgrammed, message);
    } else if behind.is_empty() {
        let message = format!("{} replicas of the edge serve this generation", observed.served.len());
        conditions.met(ConditionType::Programmed, Reason::Programmed, message);
    } else {
        let message = format!("not every replica of the edge serves it yet: {}", behind.join(", "));
        conditions.unmet(ConditionType::Programmed, Reason::NotProgrammed, message);
    }
}

/// Takes the route from the edge, and then lets the webhook go.
pub async fn clean_up<W: Webhook>(context: &Context, webhook: &W) -> Result<Done, Error> {
    if has_finalizer(webhook, FINALIZER) {
        program::withdraw(context, webhook).await?;
        set_finalizer(&context.client, webhook, FINALIZER, false).await?;
    }
    Ok(Done::gone())
}

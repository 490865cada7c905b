//! Carries the plan of a webhook out: keys first, then the route, then the status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::super::context::Context;
use super::super::material::WebhookFacts;
use super::super::{retry_in, wait};
use super::account;
use super::keys::{self, KEYS};
use super::observe::{Observed, key_secret, route_secret};
use super::plan::Plan;
use super::settle::{self, Keys, Material};
use super::{FINALIZER, Webhook};
use crate::api::{ConditionType, Conditions, Reason, WebhookKeyState, WebhookKeyStatus, WebhookStatus};
use crate::domain::identity::digest;
use crate::domain::key_set::{self, KeyRecord};
use crate::edge::Reach;
use crate::edge::report::Served;
use crate::edge::route::{Endpoint, FORMAT, Route, RouteDocument, Surroundings};
use crate::edge::watch::{ROUTE, ROUTE_ENTRY};
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::status::{has_finalizer, set_finalizer};
use crate::kubernetes::{COMPONENT, MANAGED_BY, uid};

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
    let Keys { records, material, problem, mut next, held } = keys;
    if let Some((reason, message)) = problem {
        conditions.unmet(ConditionType::KeysReady, reason, message);
    }
    let route = match (held, records.is_empty()) {
        (true, _) => observed.route.clone(),
        (false, true) => None,
        (false, false) => program(context, webhook, observed, &records, material, &mut conditions).await?,
    };
    if route.is_none() {
        withdraw(context, webhook).await?;
        next = Some(retry_in(&observed.status.conditions, ConditionType::Ready, observed.now, RETRY));
    }
    describe_keys(observed, &records, &mut status, &mut conditions);
    describe_edges(observed, route.as_deref(), &mut status, &mut conditions);
    conditions.conclude(webhook.purpose());
    status.observed_generation = webhook.meta().generation;
    status.conditions = conditions.merge(&observed.status.conditions, webhook.meta().generation, observed.now);
    W::statuses(&context.statuses).write(&context.client, webhook, &observed.status, &status).await?;
    context.events.transition(webhook, &observed.status.conditions, &conditions).await;
    let changes = key_set::next_change(&records, observed.now).map(|at| wait(observed.now, at));
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

/// Hands the route to the edge, when it is another than before. Returns its digest; `None` when it cannot be served.
async fn program<W: Webhook>(
    context: &Context,
    webhook: &W,
    observed: &Observed<W>,
    records: &[KeyRecord],
    material: Material,
    conditions: &mut Conditions,
) -> Result<Option<String>, Error> {
    let Some(edge) = context.settings.edge_namespace.as_deref() else { return Ok(None) };
    if let Some(Err((reason, message))) = &observed.account {
        conditions.unmet(ConditionType::Accepted, *reason, message.clone());
        return Ok(observed.route.clone());
    }
    let source_keys = match webhook.source_secret() {
        None => Vec::new(),
        Some(secret) => match keys::external(context, webhook, secret).await? {
            Ok(found) => found,
            Err(message) => {
                conditions.unmet(ConditionType::KeysReady, Reason::KeysInvalid, message);
                return Ok(None);
            }
        },
    };
    let spec = webhook.spec();
    let text = serde_json::to_string(&spec).map_err(|error| Error::Bug(error.to_string()))?;
    let keys = records.iter().chain(source_keys.iter().map(|(record, _)| record));
    let keys = keys.map(|key| format!("{} {} {:?} {:?}", key.id, key.fingerprint, key.not_before, key.not_after));
    let account = observed.account.iter().flatten().cloned();
    let generation = webhook.meta().generation.unwrap_or_default();
    let parts: Vec<String> =
        [FORMAT.to_owned(), generation.to_string(), text].into_iter().chain(account).chain(keys).collect();
    let wanted = digest(parts.iter().map(String::as_str));
    if observed.route.as_ref() == Some(&wanted) {
        return Ok(Some(wanted));
    }
    let material = match material {
        Some(material) => material,
        None => keys::made(context, webhook, records).await?,
    };
    let document = RouteDocument {
        endpoint: Endpoint {
            namespace: webhook.meta().namespace.clone().unwrap_or_default(),
            name: webhook.meta().name.clone().unwrap_or_default(),
            uid: uid(webhook),
            generation,
        },
        digest: wanted.clone(),
        keys: material.into_iter().map(keys::document::<W>).collect(),
        spec,
        account: account::read(context, webhook).await?,
        source_keys: source_keys.into_iter().map(keys::document::<W>).collect(),
    };
    // Where destinations may be is the edge's own matter, and judged when it connects.
    let surroundings = Surroundings {
        cluster_domain: context.settings.cluster_domain.clone(),
        service_address: None,
        destinations: Reach::Public(Arc::from([])),
    };
    if let Err(why) = Route::compile(&document, &surroundings) {
        let keys = why.starts_with("the key ");
        let (kind, reason) = if keys {
            (ConditionType::KeysReady, Reason::KeysInvalid)
        } else {
            (ConditionType::Accepted, Reason::InvalidSpec)
        };
        conditions.unmet(kind, reason, why);
        return Ok(None);
    }
    let text = serde_json::to_vec(&document).map_err(|error| Error::Bug(error.to_string()))?;
    let facts = WebhookFacts { digest: wanted.clone(), keys: Vec::new() };
    let mut annotations = facts.annotations()?;
    annotations.insert(crate::kubernetes::FOR.to_owned(), webhook.full_name());
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(route_secret(webhook)),
            namespace: Some(edge.to_owned()),
            labels: Some(BTreeMap::from([
                (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
                (COMPONENT.to_owned(), ROUTE.to_owned()),
            ])),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(ROUTE_ENTRY.to_owned(), ByteString(text))])),
        ..Secret::default()
    };
    context.webhook_secrets.put(&secret).await?;
    Ok(Some(wanted))
}

async fn withdraw<W: Webhook>(context: &Context, webhook: &W) -> Result<(), Error> {
    match context.settings.edge_namespace.as_deref() {
        Some(edge) => context.webhook_secrets.delete(edge, &route_secret(webhook), "").await,
        None => Ok(()),
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
    let serves = |served: &Option<Served>| served.as_ref().is_some_and(|served| served.route == route);
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
        withdraw(context, webhook).await?;
        set_finalizer(&context.client, webhook, FINALIZER, false).await?;
    }
    Ok(Done::gone())
}

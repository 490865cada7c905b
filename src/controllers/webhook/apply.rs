//! Carries out the plan of a webhook: keys first, then the route, then the status.

use std::time::Duration;

use super::controller::{Controller, FINALIZER};
use super::describe::{describe_keys, describe_replicas, protection};
use super::observe::Observed;
use super::plan::Plan;
use super::program;
use super::service::notice;
use super::settle::{self, Keys};
use crate::api::{ConditionType, Conditions, Reason, WebhookStatus};
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::timing::{retry_in, wait};
use crate::controllers::shared::webhook::{Webhook, key_secret};
use crate::domain::key_set;
use crate::domain::refusal::Refusal;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::status::has_finalizer;

/// How soon a webhook without a route is tried again when no watch reports what heals it, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

pub async fn apply<W: Webhook>(controller: &Controller<W>, observed: &Observed<W>, plan: Plan) -> Result<Done, Error> {
    let webhook = &*observed.webhook;
    // A route without a finalizer would be served after its webhook is gone.
    if !controller.handle.set_finalizer(webhook, FINALIZER, true).await? {
        return Ok(Done::gone());
    }
    let mut conditions = Conditions::new();
    let accepted =
        format!("the spec and everything it references are valid{}", notice(webhook, observed.service.as_ref()));
    let mut status = WebhookStatus { protection: Some(protection(observed)), ..WebhookStatus::default() };
    let keys = match plan {
        Plan::Refuse(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            Keys::default()
        }
        Plan::Generated(decision) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, accepted);
            status.key_secret = Some(key_secret(webhook));
            settle::generated(controller, observed, decision).await?
        }
        Plan::External(secret) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, accepted);
            status.key_secret = Some(secret.clone());
            settle::external(controller, observed, &secret).await?
        }
    };
    if let Some(Refusal { reason, message }) = &keys.problem {
        conditions.unmet(ConditionType::KeysReady, *reason, message.clone());
    }
    let route = if keys.keeps_route {
        observed.route.clone()
    } else if keys.records.is_empty() {
        None
    } else {
        program::program(controller, observed, &keys, &mut conditions).await?
    };
    let mut next = keys.next;
    if route.is_none() {
        program::withdraw(controller, webhook).await?;
        next = Some(retry_in(&observed.status.conditions, ConditionType::Ready, observed.now, RETRY));
    }
    describe_keys(observed, &keys.records, &mut status, &mut conditions);
    describe_replicas(observed, route.as_deref(), &mut status, &mut conditions);
    let changes = key_set::next_change(&keys.records, observed.now).map(|at| wait(observed.now, at));
    let next = next.into_iter().chain(changes).min();
    let ready = webhook.purpose();
    let conclusion = Conclusion { object: webhook, current: &observed.status, status, ready, next, now: observed.now };
    let done = controller.handle.conclude(conclusion, &mut conditions).await?;
    Ok(done.unwrap_or_else(Done::gone))
}

/// Withdraws the route from the edge, and then lets the webhook go.
pub async fn clean_up<W: Webhook>(controller: &Controller<W>, webhook: &W) -> Result<Done, Error> {
    if has_finalizer(webhook, FINALIZER) {
        program::withdraw(controller, webhook).await?;
        controller.handle.set_finalizer(webhook, FINALIZER, false).await?;
    }
    Ok(Done::gone())
}

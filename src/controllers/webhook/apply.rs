//! Carries out the plan of a webhook: keys first, then the route, then the status.

use std::time::Duration;

use super::controller::{Controller, FINALIZER};
use super::describe::{describe_keys, describe_replicas, protection};
use super::observe::Observed;
use super::plan::Plan;
use super::program::{self, Programmed};
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
/// What `Accepted` says first when it is met.
const ACCEPTED: &str = "the spec and everything it references are valid";

pub async fn apply<W: Webhook>(controller: &Controller<W>, observed: &Observed<W>, plan: Plan) -> Result<Done, Error> {
    let webhook = &*observed.webhook;
    // A route without a finalizer would be served after its webhook is gone.
    if !controller.handle.set_finalizer(webhook, FINALIZER, true).await? {
        return Ok(Done::gone());
    }
    let mut conditions = Conditions::new();
    let mut status = WebhookStatus { protection: Some(protection(observed)), ..WebhookStatus::default() };
    let is_refused = matches!(plan, Plan::Refuse(_));
    let keys = match plan {
        Plan::Refuse(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            Keys::default()
        }
        Plan::Generated(decision) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, accepted(observed));
            status.key_secret = Some(key_secret(webhook));
            settle::generated(controller, observed, decision).await?
        }
        Plan::External(secret) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, accepted(observed));
            status.key_secret = Some(secret.clone());
            settle::external(controller, observed, &secret).await?
        }
    };
    if let Some(Refusal { reason, message }) = &keys.problem {
        conditions.unmet(ConditionType::KeysReady, *reason, message.clone());
    }
    let Programmed { route, next_change } = if keys.keeps_route {
        Programmed { route: observed.route.clone(), ..Programmed::default() }
    } else if is_refused {
        Programmed::default()
    } else {
        program::program(controller, observed, &keys, &mut conditions).await?
    };
    let mut next = keys.next;
    if route.is_none() {
        program::withdraw(controller, webhook).await?;
    }
    if route.is_none() || conditions.is_unmet() {
        next = next.or(Some(retry_in(&observed.status.conditions, ConditionType::Ready, observed.now, RETRY)));
    }
    describe_keys(observed, &keys.records, &mut status, &mut conditions);
    describe_replicas(observed, route.as_deref(), &mut status, &mut conditions);
    let changes = key_set::next_change(&keys.records, observed.now).into_iter().chain(next_change);
    let next = next.into_iter().chain(changes.map(|at| wait(observed.now, at))).min();
    let ready = webhook.purpose();
    let conclusion = Conclusion { object: webhook, current: &observed.status, status, ready, next, now: observed.now };
    let done = controller.handle.conclude(conclusion, &mut conditions).await?;
    Ok(done.unwrap_or_else(Done::gone))
}

/// What `Accepted` says when it is met.
fn accepted<W: Webhook>(observed: &Observed<W>) -> String {
    let notice = notice(&*observed.webhook, observed.service.as_ref());
    let remarks = observed.webhook.remarks().into_iter().map(str::to_owned).chain(notice);
    std::iter::once(ACCEPTED.to_owned()).chain(remarks).collect::<Vec<_>>().join("; ")
}

/// Withdraws the route from the edge, and then lets the webhook go.
pub async fn clean_up<W: Webhook>(controller: &Controller<W>, webhook: &W) -> Result<Done, Error> {
    if has_finalizer(webhook, FINALIZER) {
        program::withdraw(controller, webhook).await?;
        controller.handle.set_finalizer(webhook, FINALIZER, false).await?;
    }
    Ok(Done::gone())
}

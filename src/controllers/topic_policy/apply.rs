//! Carries out the plan of a topic policy: its session records and applies, and the outcome is reported.

use std::time::Duration;

use super::controller::{Controller, FINALIZER};
use super::describe::{describe, is_applied};
use super::observe::{Current, created};
use super::plan::Plan;
use crate::api::{ConditionType, TopicPolicy};
use crate::brokers::session::{Demand, DemandMode, Outcome};
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::timing::retry_in;
use crate::domain::grants::{Bindings, describe_topic};
use crate::domain::name::Name;
use crate::domain::text::counted;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::uid;

/// How soon a broker that failed is asked again, at first and at most. Its session wakes everybody who waits for it as soon
/// as it can be used again.
pub const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));

pub async fn apply(
    controller: &Controller,
    policy: &TopicPolicy,
    current: &Current,
    plan: Plan,
) -> Result<Done, Error> {
    // A policy that was deleted has no record, and nobody would ever remove what is applied for it.
    if !controller.handle.set_finalizer(policy, FINALIZER, true).await? {
        return Ok(Done::gone());
    }
    let status = &current.status;
    let mut next = None;
    let outcome = match (&current.broker, &plan.no_broker) {
        (Some(broker), None) => {
            let demand = demand(policy, current, &plan);
            let wanted: Bindings = demand.grants.iter().flatten().cloned().collect();
            let mut outcome = broker.session.ensure(demand).await;
            // Active grants stay active while the broker is away; its BrokerConnection reports that.
            if outcome.is_err() && plan.enforce && is_applied(status) {
                let recorded = broker.session.recorded(&uid(policy), created(policy), &current.applied()).await;
                if recorded == wanted {
                    outcome = Ok(Outcome { recorded, ..Outcome::default() });
                }
            }
            // Others of the namespace may have made room in the meantime.
            let incomplete = |outcome: &Outcome| !outcome.failures.is_empty() || !outcome.exceeding.is_empty();
            let failed = outcome.as_ref().map_or(true, incomplete);
            next = failed.then(|| retry_in(&status.conditions, ConditionType::Applied, current.now, RETRY));
            Some(outcome)
        }
        _ => None,
    };
    let (described, mut conditions) = describe(policy, status, &plan, outcome);
    let (count, topic) = (plan.grants.len(), describe_topic(&policy.spec.topic));
    let (grants, verb) = (counted(count, "grant", "grants"), if count == 1 { "is" } else { "are" });
    let ready = if plan.enforce {
        format!("{grants} on {topic} {verb} active")
    } else {
        format!("{grants} on {topic} {verb} only observed; the plan is in status")
    };
    let conclusion = Conclusion { object: policy, current: status, status: described, ready, next, now: current.now };
    if let Some(done) = controller.handle.conclude(conclusion, &mut conditions).await? {
        return Ok(done);
    }
    take_back(policy, current, &plan).await;
    Ok(Done::gone())
}

fn demand(policy: &TopicPolicy, current: &Current, plan: &Plan) -> Demand {
    let grants = plan.wanted();
    let applied = current.applied();
    let imported = grants.iter().flatten().filter(|binding| applied.contains(*binding)).cloned().collect();
    let (policy, name, created) = (uid(policy), Name::of(policy).to_string(), created(policy));
    Demand { policy, name, created, grants, mode: plan.mode.clone(), imported }
}

/// A demand for no rights at all.
pub fn nothing(policy: &TopicPolicy, current: &Current, plan: &Plan) -> Demand {
    Demand { grants: Vec::new(), mode: DemandMode::Enforce, ..demand(policy, current, plan) }
}

/// Revokes what was applied for a policy that was deleted although it had the finalizer: the API server does not look at
/// finalizers again once a deletion has begun, so one that is added at this moment keeps nothing.
async fn take_back(policy: &TopicPolicy, current: &Current, plan: &Plan) {
    let Some(broker) = &current.broker else { return };
    let failure = match broker.session.ensure(nothing(policy, current, plan)).await {
        Ok(outcome) => outcome.failures.into_iter().next().map(|(it, why)| format!("{it}: {why}")),
        Err(failure) => Some(failure.message),
    };
    match failure {
        Some(error) => tracing::error!(error, "policy was deleted during reconcile; its ACLs are revoked later"),
        None => _ = broker.session.forget(&uid(policy)).await,
    }
}

//! Carries out the plan of a topic policy: recorded first, then applied, then reported.

use std::time::Duration;

use super::controller::{Controller, FINALIZER};
use super::describe::{describe, is_applied};
use super::observe::Current;
use super::plan::Plan;
use crate::api::{ConditionType, DeletionPolicy, TopicPolicy};
use crate::brokers::session::{Demand, Outcome};
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::timing::retry_in;
use crate::domain::grants::{Bindings, describe_topic};
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
    let wanted = plan.wanted();
    let recorded: Bindings = current.status.applied.iter().cloned().collect();
    let mut written = current.status.clone();
    let mut next = None;
    let outcome = match (&current.broker, &plan.no_broker) {
        (Some(broker), None) => {
            if plan.enforce && !wanted.is_subset(&recorded) {
                // Recorded before it is applied: a crash in between leaves a record without an ACL, never the reverse.
                written.applied = recorded.union(&wanted).cloned().collect();
                if !controller.handle.write_status(policy, &current.status, &written).await? {
                    return Ok(Done::gone());
                }
            }
            let demand = Demand {
                policy: uid(policy),
                wanted: wanted.clone(),
                recorded: written.applied.iter().cloned().collect(),
                enforce: plan.enforce,
            };
            let outcome = match broker.session.ensure(demand).await {
                // Active grants stay active while the broker is away; its BrokerConnection reports that.
                Err(_) if plan.enforce && wanted == recorded && is_applied(&current.status) => Ok(Outcome::default()),
                outcome => outcome,
            };
            let failed = outcome.as_ref().map_or(true, |outcome| !outcome.failures.is_empty());
            let pause = || retry_in(&written.conditions, ConditionType::Applied, current.now, RETRY);
            next = failed.then(pause);
            Some(outcome)
        }
        _ => None,
    };
    let (status, mut conditions) = describe(policy, &written, &plan, &wanted, outcome);
    let (count, topic) = (plan.grants.len(), describe_topic(&policy.spec.topic));
    let (grants, verb) = (counted(count, "grant", "grants"), if count == 1 { "is" } else { "are" });
    let ready = if plan.enforce {
        format!("{grants} on {topic} {verb} active")
    } else {
        format!("{grants} on {topic} {verb} only observed; the plan is in status")
    };
    let conclusion = Conclusion { object: policy, current: &written, status, ready, next, now: current.now };
    if let Some(done) = controller.handle.conclude(conclusion, &mut conditions).await? {
        return Ok(done);
    }
    let applied = written.applied.iter().cloned().collect();
    take_back(policy, current, applied).await;
    Ok(Done::gone())
}

/// Revokes what was applied for a policy that was deleted although it had the finalizer: the API server does not look at
/// finalizers again once a deletion has begun, so one that is added at this moment keeps nothing.
async fn take_back(policy: &TopicPolicy, current: &Current, applied: Bindings) {
    let Some(broker) = &current.broker else { return };
    if policy.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Orphan {
        return broker.session.forget(&uid(policy)).await;
    }
    let demand = Demand { policy: uid(policy), wanted: Bindings::new(), recorded: applied, enforce: true };
    let failure = match broker.session.ensure(demand).await {
        Ok(outcome) => outcome.failures.into_iter().next().map(|(it, why)| format!("{it}: {why}")),
        Err(failure) => Some(failure.message),
    };
    if let Some(error) = failure {
        tracing::error!(error, "policy was deleted during reconcile; failed to revoke its ACLs");
    }
    broker.session.forget(&uid(policy)).await;
}

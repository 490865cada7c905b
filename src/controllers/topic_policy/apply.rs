//! Carries the plan of a topic policy out: recorded first, then applied, then reported.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::super::context::Context;
use super::super::retry_in;
use super::FINALIZER;
use super::observe::Standing;
use super::plan::Plan;
use crate::api::{
    AppliedBinding, ConditionType, Conditions, DeletionPolicy, GrantState, Reason, TopicPolicy, TopicPolicyStatus,
};
use crate::brokers::BrokerFailure;
use crate::brokers::session::{Demand, Outcome};
use crate::domain::grants::{Bindings, describe_topic};
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::status::{has_finalizer, set_finalizer};
use crate::kubernetes::{display_name, uid};

/// How soon a broker that did not do as asked is asked again, at first and at most. Its session wakes everybody who
/// waits for it as soon as it can be asked again.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));

pub async fn apply(
    context: &Arc<Context>,
    policy: &TopicPolicy,
    standing: &Standing,
    plan: Plan,
) -> Result<Done, Error> {
    // What is gone by now has no record, and what would be applied for it nobody would ever remove.
    if !set_finalizer(&context.client, policy, FINALIZER, true).await? {
        return Ok(Done::gone());
    }
    let wanted = plan.wanted();
    let recorded: Bindings = standing.status.applied.iter().cloned().collect();
    let mut status = TopicPolicyStatus {
        topic: Some(describe_topic(&policy.spec.topic)),
        grants: plan.grants.iter().map(|grant| grant.status.clone()).collect(),
        plan: None,
        ..standing.status.clone()
    };
    let mut conditions = Conditions::new();
    match plan.refusal() {
        Some((kind, reason, message)) => conditions.unmet(kind, reason, message),
        None => conditions.met(ConditionType::Accepted, Reason::Valid, "the spec agrees with what it names"),
    }
    let mut current = standing.status.clone();
    let mut next = None;
    match (&standing.broker, &plan.no_broker) {
        (Some(broker), None) => {
            if plan.enforce && !wanted.is_subset(&recorded) {
                // Recorded before it is applied: a crash in between leaves a record without an ACL, never the reverse.
                let mut intent = current.clone();
                intent.applied = recorded.union(&wanted).cloned().collect();
                if !context.statuses.topic_policies.write(&context.client, policy, &current, &intent).await? {
                    return Ok(Done::gone());
                }
                current = intent;
            }
            let applied: Bindings = current.applied.iter().cloned().collect();
            let demand = Demand {
                policy: uid(policy),
                wanted: wanted.clone(),
                recorded: applied.clone(),
                enforce: plan.enforce,
            };
            let outcome = match broker.session.ensure(demand).await {
                // What is in force stays so while the broker is away; its BrokerConnection tells of that.
                Err(_) if plan.enforce && wanted == recorded && is_applied(&standing.status) => Ok(Outcome::default()),
                outcome => outcome,
            };
            let failed = outcome.as_ref().map_or(true, |outcome| !outcome.failures.is_empty());
            let pause = || retry_in(&current.conditions, ConditionType::Applied, standing.now, RETRY);
            next = failed.then(pause);
            settle(&plan, &wanted, &applied, &outcome, &mut status, &mut conditions);
        }
        _ => conditions.unmet(ConditionType::Applied, Reason::Blocked, "waits for the broker"),
    }
    let (count, topic) = (plan.grants.len(), describe_topic(&policy.spec.topic));
    conditions.conclude(if plan.enforce {
        format!("{count} grants on {topic} are in force")
    } else {
        format!("{count} grants on {topic} are only observed; the plan is in status")
    });
    status.observed_generation = policy.metadata.generation;
    status.conditions = conditions.merge(&standing.status.conditions, policy.metadata.generation, standing.now);
    if !context.statuses.topic_policies.write(&context.client, policy, &current, &status).await? {
        take_back(policy, standing, &current).await;
        return Ok(Done::gone());
    }
    context.events.transition(policy, &standing.status.conditions, &conditions).await;
    Ok(Done::with(&conditions, next))
}

/// Revokes what was applied for a policy that is gone although it had the finalizer: the API server does not look at
/// finalizers again once it has begun to delete, and one that comes at this moment holds nothing.
async fn take_back(policy: &TopicPolicy, standing: &Standing, status: &TopicPolicyStatus) {
    let Some(broker) = &standing.broker else { return };
    if policy.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Orphan {
        return broker.session.forget(&uid(policy)).await;
    }
    let recorded = status.applied.iter().cloned().collect();
    let demand = Demand { policy: uid(policy), wanted: Bindings::new(), recorded, enforce: true };
    let failure = match broker.session.ensure(demand).await {
        Ok(outcome) => outcome.failures.into_iter().next().map(|(it, why)| format!("{it}: {why}")),
        Err(failure) => Some(failure.message),
    };
    if let Some(failure) = failure {
        tracing::error!(policy = display_name(policy), failure, "gone too soon, and its rights could not be revoked");
    }
    broker.session.forget(&uid(policy)).await;
}

/// Whether the grants were in force when they were looked at last.
fn is_applied(status: &TopicPolicyStatus) -> bool {
    let applied = |it: &Condition| it.type_ == ConditionType::Applied.as_str() && it.status == "True";
    status.conditions.iter().any(applied)
}

/// Describes what became of the grants, and keeps the record of what is on the broker.
fn settle(
    plan: &Plan,
    wanted: &Bindings,
    recorded: &Bindings,
    outcome: &Result<Outcome, BrokerFailure>,
    status: &mut TopicPolicyStatus,
    conditions: &mut Conditions,
) {
    status.applied = recorded.iter().cloned().collect();
    let words = |bindings: &Bindings| bindings.iter().map(ToString::to_string).collect::<Vec<_>>();
    match outcome {
        Err(failure) => {
            conditions.unmet(ConditionType::Applied, failure.reason, failure.message.clone());
        }
        Ok(outcome) if !plan.enforce => {
            let difference = &outcome.difference;
            for (grant, planned) in status.grants.iter_mut().zip(&plan.grants) {
                if grant.state == GrantState::Pending {
                    let held = planned.bindings.is_disjoint(&difference.add);
                    grant.state = if held { GrantState::Applied } else { GrantState::Planned };
                }
            }
            let message = format!(
                "only observed: {} ACLs would be added, {} removed",
                difference.add.len(),
                difference.remove.len()
            );
            conditions.met(ConditionType::Applied, Reason::ObserveOnly, message);
            status.plan = Some(crate::api::Plan { add: words(&difference.add), remove: words(&difference.remove) });
        }
        Ok(outcome) => {
            let failed = |binding: &&AppliedBinding| outcome.failures.contains_key(*binding);
            // What is not wanted any more and could not be removed stays on record, and is tried again.
            status.applied = wanted.iter().chain(recorded.difference(wanted).filter(failed)).cloned().collect();
            for (grant, planned) in status.grants.iter_mut().zip(&plan.grants) {
                if grant.state != GrantState::Pending {
                    continue;
                }
                let failure = planned.bindings.iter().find_map(|binding| outcome.failures.get(binding));
                grant.state = if failure.is_some() { GrantState::Failed } else { GrantState::Applied };
                grant.message = failure.cloned();
            }
            match outcome.failures.iter().next() {
                None if plan.refused.is_some() => {
                    conditions.unmet(ConditionType::Applied, Reason::Blocked, "nothing of a refused policy is applied");
                }
                None => {
                    let message = format!("the broker lists all {} ACLs", wanted.len());
                    conditions.met(ConditionType::Applied, Reason::GrantsApplied, message);
                }
                Some((binding, why)) => {
                    let message = format!("{} ACLs failed; first: {binding}: {why}", outcome.failures.len());
                    conditions.unmet(ConditionType::Applied, Reason::GrantsFailed, message);
                }
            }
        }
    }
}

/// Revokes what the policy applied, and then lets it go.
pub async fn clean_up(context: &Arc<Context>, policy: &TopicPolicy, standing: &Standing) -> Result<Done, Error> {
    if !has_finalizer(policy, FINALIZER) {
        return Ok(Done::gone());
    }
    let recorded: Bindings = standing.status.applied.iter().cloned().collect();
    let orphan = policy.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Orphan;
    let problem = if recorded.is_empty() || orphan {
        None
    } else {
        match &standing.broker {
            None => Some(format!("the BrokerConnection {} is not set up", policy.spec.broker)),
            Some(broker) => {
                let demand =
                    Demand { policy: uid(policy), wanted: Bindings::new(), recorded: recorded.clone(), enforce: true };
                match broker.session.ensure(demand).await {
                    Err(failure) => Some(failure.message),
                    Ok(outcome) if !outcome.difference.remove.is_empty() && broker.observes => {
                        Some(format!("the BrokerConnection {} only observes", policy.spec.broker))
                    }
                    Ok(outcome) => outcome.failures.into_iter().next().map(|(it, why)| format!("{it}: {why}")),
                }
            }
        }
    };
    if let Some(why) = problem {
        let since = policy.metadata.deletion_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        let mut conditions = Conditions::new();
        let message = format!(
            "deleted at {since}, and {} ACLs are still to be revoked: {why}. It goes once they are; to leave them on \
             the broker, set deletionPolicy: Orphan",
            recorded.len()
        );
        conditions.unmet(ConditionType::Applied, Reason::CleanupPending, message);
        conditions.conclude("");
        let merged = conditions.merge(&standing.status.conditions, policy.metadata.generation, standing.now);
        let observed_generation = policy.metadata.generation;
        let status = TopicPolicyStatus { conditions: merged, observed_generation, ..standing.status.clone() };
        context.statuses.topic_policies.write(&context.client, policy, &standing.status, &status).await?;
        context.events.transition(policy, &standing.status.conditions, &conditions).await;
        let pause = retry_in(&standing.status.conditions, ConditionType::Applied, standing.now, RETRY);
        return Ok(Done::with(&conditions, Some(pause)));
    }
    if let Some(broker) = &standing.broker {
        broker.session.forget(&uid(policy)).await;
    }
    set_finalizer(&context.client, policy, FINALIZER, false).await?;
    Ok(Done::gone())
}

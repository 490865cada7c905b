//! Describes a topic policy in its status: what was asked of the broker, and what came of it. No client here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::plan::Plan;
use crate::api::{self, ConditionType, Conditions, GrantState, Reason, TopicPolicy, TopicPolicyStatus};
use crate::brokers::BrokerFailure;
use crate::brokers::session::Outcome;
use crate::domain::grants::{Bindings, describe_topic};
use crate::domain::refusal::Refusal;
use crate::domain::text::counted;

/// Whether the grants were active when they were looked at last.
pub fn is_applied(status: &TopicPolicyStatus) -> bool {
    let applied = |it: &Condition| it.type_ == ConditionType::Applied.as_str() && it.status == "True";
    status.conditions.iter().any(applied)
}

/// The status, conditions aside, and the conditions. `outcome` is the answer of the broker, if it was asked.
pub fn describe(
    policy: &TopicPolicy,
    written: &TopicPolicyStatus,
    plan: &Plan,
    outcome: Option<Result<Outcome, BrokerFailure>>,
) -> (TopicPolicyStatus, Conditions) {
    let mut status = TopicPolicyStatus {
        topic: Some(describe_topic(&policy.spec.topic)),
        grants: plan.grants.iter().map(|grant| grant.status.clone()).collect(),
        plan: None,
        ..written.clone()
    };
    let mut conditions = Conditions::new();
    let claimed = outcome.iter().flatten().find_map(|outcome| refuse_claimed(policy, outcome, &mut status));
    let exceeding = outcome.iter().flatten().find_map(|outcome| refuse_exceeding(policy, outcome, &mut status));
    match plan.refusal().or(claimed.as_ref()).or(exceeding.as_ref()) {
        Some(Refusal { reason, message }) => conditions.unmet(ConditionType::Accepted, *reason, message.clone()),
        None => {
            let valid = "the spec and everything it references are valid".to_owned();
            let message: Vec<String> = std::iter::once(valid).chain(plan.remarks.iter().cloned()).collect();
            conditions.met(ConditionType::Accepted, Reason::Valid, message.join("; "));
        }
    }
    match outcome {
        None => conditions.unmet(ConditionType::Applied, Reason::Blocked, "waits for the broker"),
        Some(Err(failure)) => conditions.unmet(ConditionType::Applied, failure.reason, failure.message),
        Some(Ok(outcome)) if plan.enforce => describe_applied(plan, &outcome, &mut status, &mut conditions),
        Some(Ok(outcome)) => describe_observed(plan, &outcome, &mut status, &mut conditions),
    }
    (status, conditions)
}

/// Marks the grants that read as a consumer group of another namespace, and returns the refusal of the first.
fn refuse_claimed(policy: &TopicPolicy, outcome: &Outcome, status: &mut TopicPolicyStatus) -> Option<Refusal> {
    let mut first = None;
    for (number, namespace) in &outcome.claimed {
        let group =
            policy.spec.grants.get(*number).and_then(|grant| grant.consumer_group.as_deref()).unwrap_or_default();
        let message = format!(
            "the consumer group {group} is used by the namespace {namespace} on this broker; use another group"
        );
        if let Some(grant) = status.grants.get_mut(*number) {
            grant.state = GrantState::Refused;
            grant.message = Some(message.clone());
        }
        first.get_or_insert_with(|| Refusal::new(Reason::ConsumerGroupClaimed, message));
    }
    first
}

/// Marks the grants with which the namespace would have too many ACLs, and returns their refusal.
fn refuse_exceeding(policy: &TopicPolicy, outcome: &Outcome, status: &mut TopicPolicyStatus) -> Option<Refusal> {
    if outcome.exceeding.is_empty() {
        return None;
    }
    let message = format!(
        "the policies of the namespace {} have as many ACLs on the broker {} as they may; remove other grants, or ask for a higher \
         maxBindingsPerNamespace of the BrokerConnection",
        policy.metadata.namespace.as_deref().unwrap_or_default(),
        policy.spec.broker
    );
    for number in &outcome.exceeding {
        if let Some(grant) = status.grants.get_mut(*number) {
            grant.state = GrantState::Refused;
            grant.message = Some(message.clone());
        }
    }
    Some(Refusal::new(Reason::LimitExceeded, message))
}

fn describe_observed(plan: &Plan, outcome: &Outcome, status: &mut TopicPolicyStatus, conditions: &mut Conditions) {
    let difference = &outcome.difference;
    for (grant, planned) in status.grants.iter_mut().zip(&plan.grants) {
        if grant.state == GrantState::Pending {
            let is_there = planned.bindings.is_disjoint(&difference.add);
            grant.state = if is_there { GrantState::Applied } else { GrantState::Planned };
        }
    }
    let (add, remove) = (counted(difference.add.len(), "ACL", "ACLs"), difference.remove.len());
    let message = format!("only observed: {add} would be added, {remove} removed");
    conditions.met(ConditionType::Applied, Reason::ObserveOnly, message);
    let words = |bindings: &Bindings| bindings.iter().map(ToString::to_string).collect::<Vec<_>>();
    status.plan = Some(api::Plan { add: words(&difference.add), remove: words(&difference.remove) });
    status.applied = outcome.recorded.iter().cloned().collect();
}

fn describe_applied(plan: &Plan, outcome: &Outcome, status: &mut TopicPolicyStatus, conditions: &mut Conditions) {
    status.applied = outcome.recorded.iter().cloned().collect();
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
            let message =
                format!("applied and listed by the broker: {}", counted(outcome.recorded.len(), "ACL", "ACLs"));
            conditions.met(ConditionType::Applied, Reason::GrantsApplied, message);
        }
        Some((binding, why)) => {
            let count = counted(outcome.failures.len(), "ACL", "ACLs");
            let message = format!("{count} failed; first: {binding}: {why}");
            conditions.unmet(ConditionType::Applied, Reason::GrantsFailed, message);
        }
    }
}

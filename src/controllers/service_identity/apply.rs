//! Carries the plan of an identity out and writes its status.

use std::sync::Arc;

use super::super::context::Context;
use super::super::wait;
use super::accounts::Accounts;
use super::credentials::{Settled, certificate_status, settle};
use super::observe::Observed;
use super::plan::{Plan, Slot};
use crate::api::{ConditionType, Conditions, Reason, ServiceIdentity, ServiceIdentityStatus};
use crate::domain::rotation::Cause;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::uid;

/// What a met `Accepted` says.
const ACCEPTED: &str = "the spec agrees with what it names";

pub async fn apply(
    context: &Arc<Context>,
    identity: &ServiceIdentity,
    observed: &Observed,
    plan: Plan,
) -> Result<Done, Error> {
    let mut conditions = Conditions::new();
    let mut status = ServiceIdentityStatus { conditions: Vec::new(), ..observed.status.clone() };
    status.rotation_policy = None;
    let mut next = Vec::new();
    let mut renewed = Vec::new();
    let mut closing = String::new();
    match plan {
        Plan::Refuse(reason, message) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            context.gate.leave(&uid(identity));
        }
        Plan::Wait(reason, message) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, ACCEPTED);
            conditions.unmet(ConditionType::CredentialsIssued, reason, message);
        }
        Plan::Gateway { until, message } => {
            conditions.met(ConditionType::Accepted, Reason::GatewayOnly, message.clone());
            next.push(wait(observed.now, until));
            closing = message;
            remove(context, identity, &observed.secrets).await?;
            status = ServiceIdentityStatus::default();
        }
        Plan::Certificates { spiffe_id, subject, slots, waiting, surplus } => {
            conditions.met(ConditionType::Accepted, Reason::Valid, ACCEPTED);
            closing = format!("{spiffe_id} is in force");
            status.rotation_policy = Some(observed.policy.clone());
            status.spiffe_id = Some(spiffe_id.to_string());
            let mut settled = Vec::new();
            for slot in &slots {
                let result = settle(context, identity, observed, slot).await?;
                next.extend(result.next);
                renewed.extend(result.renewed.map(|cause| (slot.secret_name.clone(), cause)));
                settled.push(result);
            }
            describe_credentials(&slots, &settled, &mut conditions);
            let mtls = slots.iter().zip(&settled).find(|(slot, _)| slot.broker.is_none());
            status.certificate = mtls
                .and_then(|(slot, it)| certificate_status(observed, slot, it, observed.status.certificate.as_ref()));
            let accounts = Accounts { slots: &slots, settled: &settled, waiting: &waiting, subject: &subject };
            next.extend(accounts.describe(context, observed, &mut status, &mut conditions).await?);
            remove(context, identity, &surplus).await?;
        }
    }
    conditions.conclude(closing);
    status.observed_generation = identity.metadata.generation;
    status.conditions = conditions.merge(&observed.status.conditions, identity.metadata.generation, observed.now);
    context.statuses.identities.write(&context.client, identity, &observed.status, &status).await?;
    report(context, identity, observed, &conditions, &renewed).await;
    Ok(Done::with(&conditions, next.into_iter().min()))
}

async fn report(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    conditions: &Conditions,
    renewed: &[(String, Cause)],
) {
    if conditions.ready() {
        if context.gate.leave(&uid(identity)) {
            context.policy_progressed(&observed.policy);
        }
    } else if renewed.iter().any(|(_, cause)| cause.is_paced()) {
        context.policy_progressed(&observed.policy);
    }
    // While somebody keeps changing a Secret, the condition says so; an event for every round would only be noise.
    let fought = conditions.verdict().is_some_and(|(reason, _)| reason == Reason::Contended);
    if let Some((_, cause)) = renewed.iter().find(|(_, cause)| *cause != Cause::Missing && !fought) {
        let secrets: Vec<&str> = renewed.iter().map(|(secret, _)| secret.as_str()).collect();
        let note = format!("renewed {} because {}", secrets.join(", "), cause.describe());
        context.events.normal(identity, Reason::Renewed, &format!("{cause:?}"), note).await;
    }
    context.events.transition(identity, &observed.status.conditions, conditions).await;
}

async fn remove(context: &Context, identity: &ServiceIdentity, secrets: &[String]) -> Result<(), Error> {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    for secret in secrets {
        context.secrets.delete(namespace, secret, &uid(identity)).await?;
    }
    Ok(())
}

fn describe_credentials(slots: &[Slot], settled: &[Settled], conditions: &mut Conditions) {
    let problem = settled.iter().find_map(|result| result.problem.clone());
    match problem {
        Some((reason, message)) => conditions.unmet(ConditionType::CredentialsIssued, reason, message),
        None => {
            let names: Vec<&str> = slots.iter().map(|slot| slot.secret_name.as_str()).collect();
            let message = format!("valid certificates are in {}", names.join(", "));
            conditions.met(ConditionType::CredentialsIssued, Reason::Issued, message);
        }
    }
}

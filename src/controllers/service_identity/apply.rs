//! Carries out the plan of an identity, and writes its status.

use std::time::Duration;

use super::accounts::Accounts;
use super::calls;
use super::controller::Controller;
use super::credentials::{Issued, certificate_status, settle};
use super::observe::Observed;
use super::plan::{Plan, Slot};
use crate::api::{ConditionType, Conditions, Reason, ServiceIdentityStatus};
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::name_records::MAX_NAMES;
use crate::controllers::shared::signal::Signal;
use crate::controllers::shared::timing::wait;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::Cause;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::uid;

/// How soon an identity with too many names looks again.
const RECHECK: Duration = Duration::from_secs(60);
/// The refusals that take its calls from an identity: it is another service's, or not of its trust domain any more.
const ENDS_CALLS: [Reason; 4] =
    [Reason::Conflict, Reason::EnvironmentMismatch, Reason::NamespaceNotAllowed, Reason::TrustDomainNotFound];
/// What `Accepted` says when it is met.
const ACCEPTED: &str = "the spec and everything it references are valid";

/// A certificate that was renewed.
struct Renewal {
    secret: String,
    cause: Cause,
}

pub async fn apply(controller: &Controller, observed: &Observed, plan: Plan) -> Result<Done, Error> {
    let identity = &*observed.identity;
    let mut conditions = Conditions::new();
    let mut status = ServiceIdentityStatus { conditions: Vec::new(), ..observed.status.clone() };
    status.rotation_policy = None;
    let mut next = Vec::new();
    let mut renewals = Vec::new();
    let mut ready = String::new();
    match record_names(controller, observed, plan).await? {
        Plan::Refuse(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            controller.gate.leave(&uid(identity));
            // No watch reports that other identities of the namespace have let names go.
            next.extend((reason == Reason::LimitExceeded).then_some(RECHECK));
            // As its rights at brokers: what is wrong with its certificate alone takes no calls from it.
            if ENDS_CALLS.contains(&reason) {
                status.calls = calls::settle(controller, observed, None).await?.0;
            }
        }
        Plan::Wait(Refusal { reason, message }) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, ACCEPTED);
            conditions.unmet(ConditionType::CredentialsIssued, reason, message);
        }
        Plan::Gateway { until, message } => {
            conditions.met(ConditionType::Accepted, Reason::GatewayOnly, message.clone());
            next.push(wait(observed.now, until));
            ready = message;
            remove(controller, observed, &observed.secrets).await?;
            let calls = calls::settle(controller, observed, None).await?.0;
            status = ServiceIdentityStatus { calls, ..ServiceIdentityStatus::default() };
        }
        Plan::Certificates { spiffe_id, subject, slots, waiting, surplus } => {
            conditions.met(ConditionType::Accepted, Reason::Valid, ACCEPTED);
            ready = format!("{spiffe_id} is active");
            status.rotation_policy = Some(observed.rotation.policy.to_string());
            status.spiffe_id = Some(spiffe_id.to_string());
            let mut issued = Vec::new();
            for slot in &slots {
                let result = settle(controller, observed, slot).await?;
                next.extend(result.next);
                let renewal = |cause| Renewal { secret: slot.secret_name.clone(), cause };
                renewals.extend(result.renewed.map(renewal));
                issued.push(result);
            }
            describe_credentials(&slots, &issued, &mut conditions);
            let mtls = slots.iter().zip(&issued).find(|(slot, _)| slot.broker.is_none());
            status.certificate = mtls
                .and_then(|(slot, it)| certificate_status(observed, slot, it, observed.status.certificate.as_ref()));
            let accounts = Accounts { slots: &slots, issued: &issued, waiting: &waiting, subject: &subject };
            next.extend(accounts.describe(controller, observed, &mut status, &mut conditions).await?);
            remove(controller, observed, &surplus).await?;
            let (calls, refusal) = calls::settle(controller, observed, Some(&spiffe_id)).await?;
            status.calls = calls;
            if let Some(Refusal { reason, message }) = refusal {
                conditions.unmet(ConditionType::Accepted, reason, message);
                next.push(RECHECK);
            }
        }
    }
    let next = next.into_iter().min();
    let conclusion = Conclusion { object: identity, current: &observed.status, status, ready, next, now: observed.now };
    let done = controller.handle.conclude(conclusion, &mut conditions).await?;
    report(controller, observed, &conditions, &renewals).await;
    Ok(done.unwrap_or_else(Done::gone))
}

/// Records the DNS names that other namespaces could claim as well, before anything is issued for them.
async fn record_names(controller: &Controller, observed: &Observed, plan: Plan) -> Result<Plan, Error> {
    if !matches!(plan, Plan::Certificates { .. }) {
        return Ok(plan);
    }
    let (namespace, names, identity) = (observed.namespace(), &observed.shared_names, &*observed.identity);
    if controller.claims.records.record(namespace, &uid(identity), names, observed.had_names).await? {
        return Ok(plan);
    }
    let message = format!(
        "the identities of the namespace {namespace} would have more than {MAX_NAMES} DNS names outside of the namespace; use fewer"
    );
    Ok(Plan::Refuse(Refusal::new(Reason::LimitExceeded, message)))
}

/// Tells the rotation policy how far it has come, and publishes an event about a renewal.
async fn report(controller: &Controller, observed: &Observed, conditions: &Conditions, renewals: &[Renewal]) {
    let identity = &*observed.identity;
    let progressed = if conditions.ready() {
        controller.gate.leave(&uid(identity))
    } else {
        renewals.iter().any(|renewal| renewal.cause.is_paced())
    };
    if let Some(policy) = observed.rotation.policy.0.clone().filter(|_| progressed) {
        controller.signals.emit(Signal::RotationProgressed(policy));
    }
    // While somebody keeps changing a Secret, the condition says so; an event for every repair would only be noise.
    let is_contended = conditions.verdict().is_some_and(|(reason, _)| reason == Reason::Contended);
    let reportable = |renewal: &&Renewal| renewal.cause != Cause::Missing && !is_contended;
    if let Some(Renewal { cause, .. }) = renewals.iter().find(reportable) {
        let secrets: Vec<&str> = renewals.iter().map(|renewal| renewal.secret.as_str()).collect();
        let note = format!("renewed {} because {}", secrets.join(", "), cause.describe());
        controller.events.normal(identity, Reason::Renewed, cause.as_str(), note).await;
    }
}

async fn remove(controller: &Controller, observed: &Observed, secrets: &[String]) -> Result<(), Error> {
    for secret in secrets {
        let owner = uid(&*observed.identity);
        controller.certificates.delete(observed.namespace(), secret, Some(&owner)).await?;
    }
    Ok(())
}

fn describe_credentials(slots: &[Slot], issued: &[Issued], conditions: &mut Conditions) {
    match issued.iter().find_map(|result| result.problem.clone()) {
        Some(Refusal { reason, message }) => conditions.unmet(ConditionType::CredentialsIssued, reason, message),
        None => {
            let names: Vec<&str> = slots.iter().map(|slot| slot.secret_name.as_str()).collect();
            let message = format!("valid certificates are in {}", names.join(", "));
            conditions.met(ConditionType::CredentialsIssued, Reason::Issued, message);
        }
    }
}

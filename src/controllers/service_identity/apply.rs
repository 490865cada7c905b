//! Carries the plan of an identity out and writes its status.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::context::{ActiveAuthority, Context};
use super::super::material;
use super::login;
use super::observe::Observed;
use super::plan::{ACCOUNT, MTLS, Plan, Slot};
use crate::api::{
    BrokerAccountStatus, CertificateStatus, ConditionType, Conditions, Reason, ServiceIdentity, ServiceIdentityStatus,
};
use crate::domain::identity::Subject;
use crate::domain::rotation::{Cause, Decision, Material, renewal_point};
use crate::issuers::IssuerError;
use crate::issuers::pem::PrivateKeyPem;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Next;
use crate::kubernetes::{display_name, owned_metadata, uid};

/// What a met `Accepted` says.
const ACCEPTED: &str = "the spec agrees with what it names";
/// How soon a renewal that waits for a place looks again.
const TURN: Duration = Duration::from_millis(500);
/// How soon something is looked at again that no watch would tell of.
const RECHECK: Duration = Duration::from_secs(15);

/// What became of one slot.
struct Settled {
    material: Option<Material>,
    /// Why it is not as it should be.
    problem: Option<(Reason, String)>,
    next: Next,
    renewed: Option<Cause>,
}

pub async fn apply(
    context: &Arc<Context>,
    identity: &ServiceIdentity,
    observed: &Observed,
    plan: Plan,
) -> Result<Next, Error> {
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
            next.push(super::super::wait(observed.now, until));
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
            describe_certificate(observed, &slots, &settled, &mut status);
            let accounts = Accounts { slots: &slots, settled: &settled, waiting: &waiting, subject: &subject };
            next.extend(accounts.describe(context, observed, &mut status, &mut conditions).await?);
            remove(context, identity, &surplus).await?;
        }
    }
    conditions.conclude(closing);
    status.conditions = conditions.merge(&observed.status.conditions, identity.metadata.generation, observed.now);
    context.statuses.identities.write(&context.client, identity, &observed.status, &status).await?;
    report(context, identity, observed, &conditions, &renewed).await;
    Ok(next.into_iter().min())
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
    if let Some((_, cause)) = renewed.iter().find(|(_, cause)| *cause != Cause::Missing) {
        let secrets: Vec<&str> = renewed.iter().map(|(secret, _)| secret.as_str()).collect();
        let note = format!("renewed {} because {}", secrets.join(", "), cause.describe());
        context.events.normal(identity, Reason::Renewed, note).await;
    }
    context.events.transition(identity, &observed.status.conditions, conditions).await;
}

/// Brings one Secret to what its decision says.
async fn settle(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
) -> Result<Settled, Error> {
    let stored = slot.broker.map_or(&observed.stored, |index| &observed.brokers[index].stored);
    let kept = |material: Option<Material>, problem, next| Settled { material, problem, next, renewed: None };
    let result = match slot.decision {
        Decision::Keep { until, .. } => {
            return Ok(kept(stored.clone(), None, Some(super::super::wait(observed.now, until))));
        }
        Decision::Refresh => refresh(context, identity, observed, slot).await,
        Decision::Issue(cause) => {
            let places = observed.rules.max_concurrent;
            let paced = cause.is_paced();
            if paced && !context.gate.enter(&observed.policy, &uid(identity), &display_name(identity), places) {
                return Ok(kept(stored.clone(), None, Some(TURN)));
            }
            issue(context, identity, observed, slot, cause).await
        }
    };
    match result {
        Ok((material, renewed)) => {
            let point = renewal_point(&observed.rules, material.issued_at, material.not_after, observed.seed);
            let next = Some(super::super::wait(observed.now, point));
            Ok(Settled { material: Some(material), problem: None, next, renewed })
        }
        Err(error @ Error::NotOwned { .. }) => {
            Ok(kept(stored.clone(), Some((Reason::NotOwned, error.to_string())), Some(RECHECK)))
        }
        Err(Error::Issuer(error @ (IssuerError::Invalid(_) | IssuerError::Expiring(_)))) => {
            Ok(kept(stored.clone(), Some((Reason::IssueFailed, error.to_string())), Some(RECHECK)))
        }
        Err(error) => Err(error),
    }
}

type Written = (Material, Option<Cause>);

async fn issue(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
    cause: Cause,
) -> Result<Written, Error> {
    let authority = authority(observed)?;
    let (for_task, request, now) = (authority.clone(), slot.request.clone(), observed.now);
    // Making an RSA key takes long enough to hold up everybody else on this thread.
    let leaf = tokio::task::spawn_blocking(move || for_task.signer.issue(&request, now))
        .await
        .map_err(|error| Error::Bug(format!("issuing was interrupted: {error}")))??;
    let signer = authority.signer.fingerprint();
    let material = material::describe_leaf(&leaf, &signer, &slot.inputs, &slot.surroundings);
    write(context, identity, observed, slot, &material, &leaf.chain_pem, &leaf.key).await?;
    context.metrics.issued(&format!("{cause:?}"));
    tracing::info!(identity = display_name(identity), secret = slot.secret_name, ?cause,
        serial_number = material.serial_number, not_after = %material.not_after, "certificate issued");
    Ok((material, Some(cause)))
}

/// Stores the same certificate and key with a new bundle or broker address.
async fn refresh(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
) -> Result<Written, Error> {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    let stored = slot.broker.map_or(&observed.stored, |index| &observed.brokers[index].stored);
    let data = context.secrets.read(namespace, &slot.secret_name).await?.and_then(|secret| secret.data);
    let text = |key: &str| {
        let value = data.as_ref().and_then(|data| data.get(key));
        value.and_then(|value| String::from_utf8(value.0.clone()).ok())
    };
    match (text("tls.crt"), text("tls.key"), stored) {
        (Some(chain), Some(key), Some(stored)) => {
            let material = Material { surroundings: slot.surroundings.clone(), ..stored.clone() };
            write(context, identity, observed, slot, &material, &chain, &PrivateKeyPem::new(key)).await?;
            Ok((material, None))
        }
        _ => issue(context, identity, observed, slot, Cause::Missing).await,
    }
}

async fn write(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
    material: &Material,
    chain_pem: &str,
    key: &PrivateKeyPem,
) -> Result<(), Error> {
    let namespace = identity.metadata.namespace.clone().unwrap_or_default();
    let broker = slot.broker.and_then(|index| observed.brokers[index].broker.as_ref());
    let (component, type_, data) = match broker {
        Some(broker) => {
            let principal = slot.request.subject.kafka_principal();
            (ACCOUNT, "servicebinding.io/kafka", broker.access.secret_data(&principal, chain_pem, key))
        }
        None => {
            let bundle = &authority(observed)?.signer.bundle_pem;
            let entries = [("tls.crt", chain_pem), ("tls.key", key.expose()), ("ca.crt", bundle)];
            let data = entries.map(|(name, text)| (name.to_owned(), ByteString(text.into())));
            (MTLS, "kubernetes.io/tls", data.into_iter().collect())
        }
    };
    let annotations = material::annotations(material);
    let secret = Secret {
        metadata: owned_metadata(identity, &namespace, &slot.secret_name, component, annotations),
        type_: Some(type_.to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    context.secrets.put(&secret).await
}

fn authority(observed: &Observed) -> Result<&Arc<ActiveAuthority>, Error> {
    observed.authority.as_ref().ok_or_else(|| Error::Bug("a plan to issue without an authority".into()))
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

fn describe_certificate(observed: &Observed, slots: &[Slot], settled: &[Settled], status: &mut ServiceIdentityStatus) {
    let found = slots.iter().zip(settled).find(|(slot, _)| slot.broker.is_none());
    status.certificate = found.and_then(|(slot, result)| certificate_status(observed, slot, result));
}

fn certificate_status(observed: &Observed, slot: &Slot, settled: &Settled) -> Option<CertificateStatus> {
    let material = settled.material.as_ref().filter(|material| material.intact)?;
    let renew_at = renewal_point(&observed.rules, material.issued_at, material.not_after, observed.seed);
    Some(CertificateStatus {
        secret_name: slot.secret_name.clone(),
        serial_number: material.serial_number.clone(),
        fingerprint: material.fingerprint.clone(),
        issued_at: Some(Time(material.issued_at)),
        not_after: Some(Time(material.not_after)),
        renew_at: Some(Time(renew_at)),
    })
}

/// The broker accounts of an identity.
struct Accounts<'a> {
    slots: &'a [Slot],
    settled: &'a [Settled],
    waiting: &'a [(String, Reason, String)],
    subject: &'a Subject,
}

impl Accounts<'_> {
    /// Verifies what is new by logging in, and describes all accounts.
    async fn describe(
        &self,
        context: &Context,
        observed: &Observed,
        status: &mut ServiceIdentityStatus,
        conditions: &mut Conditions,
    ) -> Result<Next, Error> {
        let namespace = observed.identity.metadata.namespace.as_deref().unwrap_or_default();
        let mut problem = self.waiting.first().map(|(_, reason, message)| (*reason, message.clone()));
        let mut next = problem.as_ref().map(|_| RECHECK);
        let mut accounts = Vec::new();
        for (slot, settled) in self.slots.iter().zip(self.settled) {
            let Some(index) = slot.broker else { continue };
            let broker = &observed.brokers[index];
            let known = observed.status.brokers.iter().find(|account| account.name == broker.name);
            let certificate = certificate_status(observed, slot, settled);
            let fingerprint = certificate.as_ref().map(|certificate| certificate.fingerprint.clone());
            let mut verified = known.and_then(|account| account.verified_fingerprint.clone());
            if fingerprint.is_some()
                && verified != fingerprint
                && let Some(broker) = &broker.broker
            {
                match login::verify(context, broker, namespace, &slot.secret_name).await? {
                    Ok(()) => verified = fingerprint,
                    Err(failure) => {
                        problem.get_or_insert((failure.reason, failure.message));
                        next = Some(RECHECK);
                    }
                }
            }
            accounts.push(BrokerAccountStatus {
                name: broker.name.clone(),
                principal: Some(self.subject.kafka_principal()),
                certificate,
                verified_fingerprint: verified,
            });
        }
        status.brokers = accounts;
        match problem {
            Some((reason, message)) => conditions.unmet(ConditionType::BrokerAccess, reason, message),
            None if status.brokers.is_empty() => {}
            None => {
                let names: Vec<&str> = status.brokers.iter().map(|account| account.name.as_str()).collect();
                let message = format!("{} let it in as {}", names.join(", "), self.subject.kafka_principal());
                conditions.met(ConditionType::BrokerAccess, Reason::LoginVerified, message);
            }
        }
        Ok(next)
    }
}

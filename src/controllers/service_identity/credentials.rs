//! Brings the Secrets of an identity to what their decisions say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::context::{ActiveAuthority, Context};
use super::super::{material, wait};
use super::observe::Observed;
use super::plan::{ACCOUNT, MTLS, Slot};
use crate::api::{CertificateStatus, Reason, ServiceIdentity};
use crate::domain::rotation::{Cause, Decision, Material, renewal_point};
use crate::domain::secret::SecretText;
use crate::kubernetes::error::{Class, Error};
use crate::kubernetes::run::Next;
use crate::kubernetes::{display_name, owned_metadata, uid};

/// How soon a renewal that waits for a place looks again.
const TURN: Duration = Duration::from_millis(500);
/// How soon something is looked at again that no watch would tell of.
const RECHECK: Duration = Duration::from_secs(15);

/// A certificate chain with its key, as stored.
#[derive(Clone)]
pub struct Credential {
    pub chain_pem: String,
    pub key: SecretText,
}

/// What became of one slot.
pub struct Settled {
    pub material: Option<Material>,
    /// Why it is not as it should be.
    pub problem: Option<(Reason, String)>,
    pub next: Next,
    pub renewed: Option<Cause>,
    /// What was just written, so that it need not be read again to log in with it.
    pub written: Option<Credential>,
}

impl Settled {
    fn kept(material: Option<Material>, problem: Option<(Reason, String)>, next: Next) -> Self {
        Self { material, problem, next, renewed: None, written: None }
    }
}

/// Brings one Secret to what its decision says.
///
/// # Errors
/// What the API server said, when it should be tried again.
pub async fn settle(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
) -> Result<Settled, Error> {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    let mut settled = carry_out(context, identity, observed, slot).await?;
    if settled.problem.is_none()
        && let Some((message, calm_in)) = context.secrets.fight(namespace, &slot.secret_name, Instant::now())
    {
        settled.problem = Some((Reason::Contended, message));
        settled.next = settled.next.into_iter().chain([calm_in]).min();
    }
    Ok(settled)
}

async fn carry_out(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
) -> Result<Settled, Error> {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    let stored = observed.stored_in(slot);
    let result = match &slot.decision {
        Decision::Keep { until, .. } => {
            return Ok(Settled::kept(stored.clone(), None, Some(wait(observed.now, *until))));
        }
        Decision::Refresh => refresh(context, identity, observed, slot).await,
        Decision::Issue(cause) => {
            let held =
                cause.is_repair().then(|| context.secrets.held_back(namespace, &slot.secret_name, Instant::now()));
            if let Some((message, pause)) = held.flatten() {
                return Ok(Settled::kept(stored.clone(), Some((Reason::Contended, message)), Some(pause)));
            }
            let places = observed.rules.max_concurrent;
            let paced = cause.is_paced();
            if paced && !context.gate.enter(&observed.policy, &uid(identity), &display_name(identity), places) {
                return Ok(Settled::kept(stored.clone(), None, Some(TURN)));
            }
            issue(context, identity, observed, slot, *cause).await
        }
    };
    match result {
        Ok(settled) => Ok(settled),
        Err(error @ Error::NotOwned { .. }) => {
            Ok(Settled::kept(stored.clone(), Some((Reason::NotOwned, error.to_string())), Some(RECHECK)))
        }
        // An authority that cannot sign, a quota or an admission rule that refuses the Secret.
        Err(error) if error.class() == Class::NeedsUser => {
            Ok(Settled::kept(stored.clone(), Some((Reason::IssueFailed, error.to_string())), Some(RECHECK)))
        }
        Err(error) => Err(error),
    }
}

async fn issue(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
    cause: Cause,
) -> Result<Settled, Error> {
    let authority = authority(observed)?;
    let (for_task, request, now) = (authority.clone(), slot.request.clone(), observed.now);
    // Making an RSA key takes long enough to hold up everybody else on this thread.
    let leaf = tokio::task::spawn_blocking(move || for_task.signer.issue(&request, now))
        .await
        .map_err(|error| Error::Bug(format!("issuing was interrupted: {error}")))??;
    let signer = authority.signer.fingerprint();
    let material = material::describe_leaf(&leaf, &signer, &slot.inputs, &slot.surroundings);
    let credential = Credential { chain_pem: leaf.chain_pem, key: leaf.key };
    write(context, identity, observed, slot, &material, &credential).await?;
    if cause.is_repair() {
        let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
        let who = observed.stored_in(slot).as_ref().and_then(|material| material.altered_by.as_deref());
        context.secrets.repaired(namespace, &slot.secret_name, who, Instant::now());
        context.metrics.kubernetes_repaired("Secret");
    }
    context.metrics.issued(&format!("{cause:?}"));
    tracing::info!(identity = display_name(identity), secret = slot.secret_name, ?cause,
        serial_number = material.serial_number, not_after = %material.not_after, "certificate issued");
    Ok(stored(observed, material, Some(cause), credential))
}

/// Stores the same certificate and key with a new bundle or broker address.
async fn refresh(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
) -> Result<Settled, Error> {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    let known = observed.stored_in(slot);
    match (read(context, namespace, &slot.secret_name).await?, known) {
        (Some(credential), Some(known)) => {
            let material = Material { surroundings: slot.surroundings.clone(), ..known.clone() };
            write(context, identity, observed, slot, &material, &credential).await?;
            Ok(stored(observed, material, None, credential))
        }
        _ => issue(context, identity, observed, slot, Cause::Deleted).await,
    }
}

fn stored(observed: &Observed, material: Material, renewed: Option<Cause>, written: Credential) -> Settled {
    let point = renewal_point(&observed.rules, material.issued_at, material.not_after, observed.seed);
    let next = Some(wait(observed.now, point));
    Settled { material: Some(material), problem: None, next, renewed, written: Some(written) }
}

/// Reads a credential back from its Secret.
///
/// # Errors
/// What the API server said.
pub async fn read(context: &Context, namespace: &str, secret: &str) -> Result<Option<Credential>, Error> {
    let data = context.secrets.read(namespace, secret).await?.and_then(|secret| secret.data).unwrap_or_default();
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    let credential = |chain_pem| Some(Credential { chain_pem, key: SecretText::new(text("tls.key")?) });
    Ok(text("tls.crt").and_then(credential))
}

async fn write(
    context: &Context,
    identity: &ServiceIdentity,
    observed: &Observed,
    slot: &Slot,
    material: &Material,
    credential: &Credential,
) -> Result<(), Error> {
    let Credential { chain_pem, key } = credential;
    let namespace = identity.metadata.namespace.clone().unwrap_or_default();
    let broker = slot.broker.and_then(|index| observed.brokers[index].broker.as_ref());
    let (component, type_, data) = match broker {
        Some(broker) => {
            let principal = slot.request.subject.kafka_principal();
            (ACCOUNT, "servicebinding.io/kafka", broker.access.secret_data(&principal, chain_pem, key))
        }
        None => {
            let bundle = &authority(observed)?.signer.bundle_pem;
            let entries = [("tls.crt", chain_pem.as_str()), ("tls.key", key.expose()), ("ca.crt", bundle)];
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

/// A certificate as status tells it: the one that is stored, or while that cannot be trusted the one before.
pub fn certificate_status(
    observed: &Observed,
    slot: &Slot,
    settled: &Settled,
    before: Option<&CertificateStatus>,
) -> Option<CertificateStatus> {
    let Some(material) = settled.material.as_ref().filter(|material| material.altered_by.is_none()) else {
        return before.cloned();
    };
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

//! Brings the Secrets of an identity to what their decisions say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::controller::Controller;
use super::credential::Credential;
use super::observe::Observed;
use super::plan::Slot;
use crate::api::{CertificateStatus, ConditionType, Kind, Reason};
use crate::contract::component::Component;
use crate::controllers::shared::authorities::ActiveAuthority;
use crate::controllers::shared::material;
use crate::controllers::shared::timing::{retry_in, wait};
use crate::domain::name::Name;
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Cause, Decision, Material, renewal_point};
use crate::domain::secret::SecretText;
use crate::issuers::pem;
use crate::kubernetes::error::Error;
use crate::kubernetes::owned::Contended;
use crate::kubernetes::run::Next;
use crate::kubernetes::{owned_metadata, uid};

/// How soon a renewal that waits for a permit looks again.
const POLL: Duration = Duration::from_millis(500);
/// How soon an identity is looked at again when no watch would report what heals it, at first and at most.
const RECHECK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(120));

/// The result of carrying out the decision about one Secret.
pub struct Issued {
    pub material: Option<Material>,
    /// Why it is not as it should be.
    pub problem: Option<Refusal>,
    pub next: Next,
    pub renewed: Option<Cause>,
    /// The credential that was just written, so that it need not be read again to log in with it.
    pub written: Option<Credential>,
}

impl Issued {
    fn kept(material: Option<Material>, problem: Option<Refusal>, next: Next) -> Self {
        Self { material, problem, next, renewed: None, written: None }
    }
}

/// Brings one Secret to what its decision says.
///
/// # Errors
/// What the API server answered, when it is worth a retry.
pub async fn settle(controller: &Controller, observed: &Observed, slot: &Slot) -> Result<Issued, Error> {
    let mut issued = carry_out(controller, observed, slot).await?;
    let owner = uid(&*observed.identity);
    let place = (observed.namespace(), slot.secret_name.as_str(), owner.as_str());
    let contended = controller.certificates.contended(place, Instant::now());
    if issued.problem.is_none()
        && let Some(Contended { message, wait }) = contended
    {
        issued.problem = Some(Refusal::new(Reason::Contended, message));
        issued.next = issued.next.into_iter().chain([wait]).min();
    }
    Ok(issued)
}

async fn carry_out(controller: &Controller, observed: &Observed, slot: &Slot) -> Result<Issued, Error> {
    let stored = observed.stored_for(slot.broker);
    let result = match &slot.decision {
        Decision::Keep { until, .. } => {
            return Ok(Issued::kept(stored.clone(), None, Some(wait(observed.now, *until))));
        }
        Decision::Refresh => refresh(controller, observed, slot).await,
        Decision::Issue(cause) => {
            let owner = uid(&*observed.identity);
            let place = (observed.namespace(), slot.secret_name.as_str(), owner.as_str());
            let held_back = cause.is_repair().then(|| controller.certificates.held_back(place, Instant::now()));
            if let Some(Contended { message, wait }) = held_back.flatten() {
                return Ok(Issued::kept(stored.clone(), Some(Refusal::new(Reason::Contended, message)), Some(wait)));
            }
            if cause.is_paced() && !enter(controller, observed, *cause) {
                return Ok(Issued::kept(stored.clone(), None, Some(POLL)));
            }
            issue(controller, observed, slot, *cause).await
        }
    };
    result.or_else(|error| {
        let refusal = error.into_refusal()?;
        let next = retry_in(&observed.status.conditions, ConditionType::CredentialsIssued, observed.now, RECHECK);
        Ok(Issued::kept(stored.clone(), Some(refusal), Some(next)))
    })
}

/// Whether a renewal may begin. An identity that is not Ready anyway takes no place: its state says nothing about the rotation.
fn enter(controller: &Controller, observed: &Observed, cause: Cause) -> bool {
    let (identity, rotation) = (&*observed.identity, &observed.rotation);
    if !identity.is_ready() {
        return true;
    }
    let own = (&rotation.policy, rotation.rules.max_concurrent);
    let request = rotation.request(observed.now).filter(|_| cause == Cause::Requested);
    let (policy, permits) = request.map_or(own, |request| (&request.policy, request.permits));
    controller.gate.enter(policy, &uid(identity), &Name::of(identity), permits, Instant::now())
}

async fn issue(controller: &Controller, observed: &Observed, slot: &Slot, cause: Cause) -> Result<Issued, Error> {
    let authority = authority(observed)?;
    let (for_task, request, now) = (authority.clone(), slot.request.clone(), observed.now);
    // Making an RSA key takes long enough to hold up everybody else on this thread.
    let leaf = tokio::task::spawn_blocking(move || for_task.signer.issue(&request, now))
        .await
        .map_err(|_| Error::Bug("issuing a certificate panicked".into()))??;
    let signer = authority.signer.fingerprint();
    let material = material::describe_leaf(&leaf, &signer, &slot.inputs, &slot.surroundings);
    let credential = Credential { chain_pem: leaf.chain_pem, key: leaf.key };
    write(controller, observed, slot, &material, &credential).await?;
    if cause.is_repair() {
        let namespace = observed.namespace();
        let altered_by = observed.stored_for(slot.broker).as_ref().and_then(|material| material.altered_by.as_ref());
        let owner = uid(&*observed.identity);
        let place = (namespace, slot.secret_name.as_str(), owner.as_str());
        controller.certificates.repaired(place, altered_by, Instant::now());
        controller.metrics.kubernetes_repaired("Secret");
    }
    controller.metrics.issued(cause.as_str());
    tracing::info!(secret = slot.secret_name, cause = cause.as_str(),
        serial_number = material.serial_number,
        not_after = %material.not_after, "certificate issued");
    Ok(stored(observed, material, Some(cause), credential))
}

/// Stores the same certificate and key with a new bundle or broker address.
async fn refresh(controller: &Controller, observed: &Observed, slot: &Slot) -> Result<Issued, Error> {
    let namespace = observed.namespace();
    let known = observed.stored_for(slot.broker);
    let fingerprint = known.as_ref().map(|known| known.fingerprint.as_str()).unwrap_or_default();
    match (read(controller, namespace, &slot.secret_name, fingerprint).await?, known) {
        (Some(credential), Some(known)) => {
            let material = Material { surroundings: slot.surroundings.clone(), ..known.clone() };
            write(controller, observed, slot, &material, &credential).await?;
            Ok(stored(observed, material, None, credential))
        }
        _ => issue(controller, observed, slot, Cause::Altered).await,
    }
}

fn stored(observed: &Observed, material: Material, renewed: Option<Cause>, written: Credential) -> Issued {
    let point = renewal_point(&observed.rotation.rules, material.issued_at, material.not_after, observed.seed);
    let next = Some(wait(observed.now, point));
    Issued { material: Some(material), problem: None, next, renewed, written: Some(written) }
}

/// Reads a credential back from its Secret; `None` when it is not the one with this fingerprint: the owner of the namespace can
/// write the Secret as well.
///
/// # Errors
/// What the API server answered.
pub async fn read(
    controller: &Controller,
    namespace: &str,
    secret: &str,
    fingerprint: &str,
) -> Result<Option<Credential>, Error> {
    let data =
        controller.certificates.read(namespace, secret).await?.and_then(|secret| secret.data).unwrap_or_default();
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    let credential = |chain_pem| Some(Credential { chain_pem, key: SecretText::new(text("tls.key")?) });
    let is_known = |chain: &String| {
        let certificates = pem::certificates(chain.as_bytes(), "tls.crt").unwrap_or_default();
        certificates.first().is_some_and(|leaf| leaf.fingerprint() == fingerprint)
    };
    Ok(text("tls.crt").filter(is_known).and_then(credential))
}

async fn write(
    controller: &Controller,
    observed: &Observed,
    slot: &Slot,
    material: &Material,
    credential: &Credential,
) -> Result<(), Error> {
    let Credential { chain_pem, key } = credential;
    let broker = slot.broker.and_then(|index| observed.brokers[index].broker.as_ref());
    let (component, type_, data) = match broker {
        Some(broker) => {
            let principal = slot.request.subject.kafka_principal();
            (Component::BrokerAccount, "servicebinding.io/kafka", broker.access.secret_data(&principal, chain_pem, key))
        }
        None => {
            let bundle = &authority(observed)?.signer.bundle_pem;
            let entries = [("tls.crt", chain_pem.as_str()), ("tls.key", key.expose()), ("ca.crt", bundle)];
            let data = entries.map(|(name, text)| (name.to_owned(), ByteString(text.into())));
            (Component::Mtls, "kubernetes.io/tls", data.into_iter().collect())
        }
    };
    let annotations = material::annotations(material);
    let secret = Secret {
        metadata: owned_metadata(&*observed.identity, observed.namespace(), &slot.secret_name, component, annotations),
        type_: Some(type_.to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    controller.certificates.put(&secret).await
}

fn authority(observed: &Observed) -> Result<&Arc<ActiveAuthority>, Error> {
    observed.authority.as_ref().ok_or_else(|| Error::Bug("a plan to issue without an authority".into()))
}

/// A certificate as status describes it: the stored one, or the one before while the stored one cannot be trusted.
pub fn certificate_status(
    observed: &Observed,
    slot: &Slot,
    settled: &Issued,
    before: Option<&CertificateStatus>,
) -> Option<CertificateStatus> {
    let Some(material) = settled.material.as_ref().filter(|material| material.altered_by.is_none()) else {
        return before.cloned();
    };
    let renew_at = renewal_point(&observed.rotation.rules, material.issued_at, material.not_after, observed.seed);
    Some(CertificateStatus {
        secret_name: slot.secret_name.clone(),
        serial_number: material.serial_number.clone(),
        fingerprint: material.fingerprint.clone(),
        issued_at: Some(Time(material.issued_at)),
        not_after: Some(Time(material.not_after)),
        renew_at: Some(Time(renew_at)),
    })
}

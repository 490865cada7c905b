//! Decides what an identity needs. No client here.

use jiff::{SignedDuration, Timestamp};

use super::observe::{Observed, ObservedBroker, Stored};
use crate::api::{KeyAlgorithm, Reason, TrustDomain};
use crate::domain::identity::{SpiffeId, Subject, digest, may_claim};
use crate::domain::refusal::Refusal;
use crate::domain::rotation::{Decision, Wanted, decide};
use crate::domain::selector;
use crate::issuers::authority::LeafRequest;

/// For how long after its creation an identity may be trusted through a gateway.
const GATEWAY_LIMIT: SignedDuration = SignedDuration::from_hours(24 * 366);

/// One Secret that the identity is to have.
pub struct Slot {
    pub secret_name: String,
    /// The broker of an account, by its index in [`Observed::brokers`]; `None` for the Secret for mutual TLS.
    pub broker: Option<usize>,
    pub request: LeafRequest,
    pub inputs: String,
    pub surroundings: String,
    pub decision: Decision,
}

/// What an identity needs.
pub enum Plan {
    /// Nothing can be done before something else changes.
    Refuse(Refusal),
    /// The spec is accepted, and nothing can be signed yet.
    Wait(Refusal),
    /// Nothing is issued: a gateway vouches for the service until then.
    Gateway { until: Timestamp, message: String },
    /// Certificates.
    Certificates {
        spiffe_id: SpiffeId,
        subject: Subject,
        slots: Vec<Slot>,
        /// Why the Secrets of some accounts cannot be made yet.
        waiting: Vec<Refusal>,
        /// Secrets of this identity that it does not ask for any more.
        surplus: Vec<String>,
    },
}

pub fn plan(observed: &Observed) -> Plan {
    match accept(observed) {
        Err(refusal) => Plan::Refuse(refusal),
        Ok(domain) => match gateway(observed) {
            Some(plan) => plan,
            None => certificates(observed, domain),
        },
    }
}

/// Why an identity is refused whatever names it claims.
pub fn joins(observed: &Observed) -> Result<&TrustDomain, Refusal> {
    let spec = &observed.identity.spec;
    let domain = observed.trust_domain.as_ref().ok_or_else(|| {
        let message = format!("the TrustDomain {} does not exist; create it, or name another one", spec.trust_domain);
        Refusal::new(Reason::TrustDomainNotFound, message)
    })?;
    let namespace = observed.namespace();
    if let Some(selector) = &domain.spec.identity_namespace_selector
        && !selector::matches(selector, &observed.namespace_labels)
    {
        let message = format!(
            "the TrustDomain {} takes no identities of the namespace {namespace}; use another one, or ask for the \
             namespace in its spec.identityNamespaceSelector",
            spec.trust_domain
        );
        return Err(Refusal::new(Reason::NamespaceNotAllowed, message));
    }
    for broker in &observed.brokers {
        match &broker.environment {
            Some(environment) if *environment != domain.spec.environment => {
                let message = format!(
                    "the BrokerConnection {} belongs to the environment {environment}, the TrustDomain {} to {}; use \
                     a broker of the same environment",
                    broker.name, spec.trust_domain, domain.spec.environment
                );
                return Err(Refusal::new(Reason::EnvironmentMismatch, message));
            }
            _ => {}
        }
    }
    Ok(domain)
}

fn accept(observed: &Observed) -> Result<&TrustDomain, Refusal> {
    let (domain, spec, namespace) = (joins(observed)?, &observed.identity.spec, observed.namespace());
    if let Some(holder) = &observed.account_holder {
        let message = format!(
            "the ServiceIdentity {}/{} already stands for the ServiceAccount {} in this trust domain; delete one of \
             the two, or set another serviceAccountName in a new one",
            holder.name.namespace,
            holder.name.name,
            observed.identity.service_account()
        );
        return Err(Refusal::new(Reason::Conflict, message));
    }
    for name in spec.authentication.mtls.iter().flat_map(|mtls| &mtls.dns_names) {
        let rules = &domain.spec.dns_names;
        if !may_claim(name, namespace, &observed.namespace_labels, &observed.cluster_domain, rules) {
            let message = format!(
                "the namespace {namespace} may not claim the DNS name {name}; use <service>.{namespace}.svc, or ask \
                 for a suffix in spec.dnsNames of the TrustDomain {}",
                spec.trust_domain
            );
            return Err(Refusal::new(Reason::DnsNameNotAllowed, message));
        }
    }
    if let Some((name, holder)) = observed.claimed_names.first() {
        let message = format!(
            "the DNS name {name} belongs to the ServiceIdentity {}/{} already; remove it from one of the two",
            holder.name.namespace, holder.name.name
        );
        return Err(Refusal::new(Reason::DnsNameClaimed, message));
    }
    Ok(domain)
}

fn gateway(observed: &Observed) -> Option<Plan> {
    let gateway = observed.identity.spec.authentication.gateway_only.as_ref()?;
    let until = gateway.expires_at.0;
    let created = observed.identity.metadata.creation_timestamp.as_ref().map_or(observed.now, |time| time.0);
    if until <= observed.now {
        let message = format!(
            "trust through the gateway {} ended at {until}; give the service a certificate of its own with \
             authentication.mtls",
            gateway.gateway.name
        );
        return Some(Plan::Refuse(Refusal::new(Reason::GatewayTrustExpired, message)));
    }
    if until.duration_since(created) > GATEWAY_LIMIT {
        let message = format!(
            "expiresAt {until} is more than a year after this object was created; trust through a gateway is for a \
             while only, set an earlier date"
        );
        return Some(Plan::Refuse(Refusal::new(Reason::GatewayTrustTooLong, message)));
    }
    let message = format!(
        "trusted through the gateway {} until {until}, without proof of its own: {}",
        gateway.gateway.name, gateway.reason
    );
    Some(Plan::Gateway { until, message })
}

fn certificates(observed: &Observed, domain: &TrustDomain) -> Plan {
    let identity = &observed.identity;
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    let spiffe_id = match SpiffeId::new(&domain.spec.domain, namespace, identity.service_account()) {
        Ok(id) => id,
        Err(error) => return Plan::Refuse(Refusal::new(Reason::NameTooLong, error.to_string())),
    };
    let Some(authority) = &observed.authority else {
        let message = format!(
            "the TrustDomain {} has no authority that can sign; see its status conditions",
            identity.spec.trust_domain
        );
        return Plan::Wait(Refusal::new(Reason::TrustDomainNotReady, message));
    };
    let subject = Subject::of(identity, &domain.spec.domain);
    let slot = |secret_name: String,
                stored: &Stored,
                broker: Option<usize>,
                request: LeafRequest,
                surroundings: String| {
        let inputs = inputs(&request);
        let account = broker.map(|index| &observed.brokers[index].name);
        let accounts = &observed.status.brokers;
        let existed = match account {
            None => observed.status.certificate.is_some(),
            Some(name) => accounts.iter().any(|account| account.name == *name && account.certificate.is_some()),
        };
        let wanted =
            Wanted { inputs: &inputs, surroundings: &surroundings, authorities: &authority.signer.trusted, existed };
        let decision = decide(&observed.rotation.rules, stored.as_ref(), &wanted, observed.seed, observed.now);
        Slot { secret_name, broker, request, inputs, surroundings, decision }
    };
    let request = |dns_names: Vec<String>, key_algorithm| LeafRequest {
        spiffe_id: spiffe_id.clone(),
        subject: subject.clone(),
        dns_names,
        key_algorithm,
        lifetime: observed.rotation.rules.lifetime,
    };
    let mut slots = Vec::new();
    let mut waiting = Vec::new();
    if let Some(mtls) = &identity.spec.authentication.mtls {
        let mut dns_names = mtls.dns_names.clone();
        dns_names.sort();
        let request = request(dns_names, mtls.key_algorithm.unwrap_or_default());
        let bundle = authority.signer.bundle_hash.clone();
        slots.push(slot(observed.mtls_secret(), &observed.stored, None, request, bundle));
    }
    for (index, broker) in observed.brokers.iter().enumerate() {
        match &broker.broker {
            // Kafka's clients take RSA and ECDSA keys in PEM, and nothing else.
            Some(found) => slots.push(slot(
                observed.account_secret(&broker.name),
                &broker.stored,
                Some(index),
                request(Vec::new(), KeyAlgorithm::Ecdsa),
                found.access.digest(),
            )),
            None => waiting.push(wait(broker)),
        }
    }
    let keep = |secret: &&String| {
        slots.iter().any(|slot| slot.secret_name == **secret)
            || identity.spec.brokers.iter().any(|broker| observed.account_secret(&broker.name) == **secret)
    };
    let surplus = observed.secrets.iter().filter(|secret| !keep(secret)).cloned().collect();
    Plan::Certificates { spiffe_id, subject, slots, waiting, surplus }
}

fn wait(broker: &ObservedBroker) -> Refusal {
    let name = &broker.name;
    match broker.environment {
        None => {
            let message = format!("the BrokerConnection {name} does not exist; create it, or remove it from brokers");
            Refusal::new(Reason::BrokerNotFound, message)
        }
        Some(_) => {
            let message = format!("the BrokerConnection {name} is not ready; see its status conditions");
            Refusal::new(Reason::BrokerNotReady, message)
        }
    }
}

/// Digest of what a certificate says. The lifetime is left out: it takes effect at the next renewal.
fn inputs(request: &LeafRequest) -> String {
    let subject = [&request.subject.organization, &request.subject.unit, &request.subject.common_name];
    digest(
        [request.spiffe_id.as_str(), request.key_algorithm.as_str()]
            .into_iter()
            .chain(subject.into_iter().map(String::as_str))
            .chain(request.dns_names.iter().map(String::as_str)),
    )
}

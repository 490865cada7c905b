//! Decides what an identity needs. No client here.

use jiff::{SignedDuration, Timestamp};

use super::observe::{Observed, ObservedBroker, Stored};
use crate::api::{KeyAlgorithm, Reason, ServiceIdentity, TrustDomain};
use crate::domain::identity::{SpiffeId, Subject, digest, may_claim};
use crate::domain::rotation::{Decision, Wanted, decide};
use crate::issuers::authority::LeafRequest;

/// For how long after its creation an identity may be trusted through a gateway.
const GATEWAY_LIMIT: SignedDuration = SignedDuration::from_hours(24 * 366);

/// Component label of the Secret for mutual TLS.
pub const MTLS: &str = "mtls";
/// Component label of the Secret of a broker account.
pub const ACCOUNT: &str = "broker-account";

/// One Secret that the identity is to have.
pub struct Slot {
    pub secret_name: String,
    /// The broker it is for, by its place in [`Observed::brokers`]; the others are for mutual TLS.
    pub broker: Option<usize>,
    pub request: LeafRequest,
    pub inputs: String,
    pub surroundings: String,
    pub decision: Decision,
}

/// What an identity needs.
pub enum Plan {
    /// Nothing can be done before something else changes.
    Refuse(Reason, String),
    /// The spec is accepted, and nobody can sign yet.
    Wait(Reason, String),
    /// Nothing is to be issued: a gateway vouches for it until then.
    Gateway { until: Timestamp, message: String },
    /// Certificates.
    Certificates {
        spiffe_id: SpiffeId,
        subject: Subject,
        slots: Vec<Slot>,
        /// Brokers that the Secret cannot be made for yet, and why.
        waiting: Vec<(String, Reason, String)>,
        /// Secrets of this identity that it does not ask for any more.
        surplus: Vec<String>,
    },
}

/// The ServiceAccount of an identity.
pub fn service_account(identity: &ServiceIdentity) -> String {
    let name = identity.metadata.name.clone().unwrap_or_default();
    identity.spec.service_account_name.clone().unwrap_or(name)
}

/// Name of the Secret for mutual TLS.
pub fn mtls_secret_name(identity: &ServiceIdentity) -> String {
    format!("{}-mtls", identity.metadata.name.as_deref().unwrap_or_default())
}

/// The subject of every certificate of an identity.
pub fn subject(identity: &ServiceIdentity, domain: &str) -> Subject {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    Subject::new(domain, namespace, &service_account(identity))
}

pub fn plan(observed: &Observed) -> Plan {
    match accept(observed) {
        Err((reason, message)) => Plan::Refuse(reason, message),
        Ok(domain) => match gateway(observed) {
            Some(plan) => plan,
            None => certificates(observed, domain),
        },
    }
}

fn accept(observed: &Observed) -> Result<&TrustDomain, (Reason, String)> {
    let spec = &observed.identity.spec;
    let domain = observed.trust_domain.as_ref().ok_or_else(|| {
        let message = format!("the TrustDomain {} does not exist; create it, or name another one", spec.trust_domain);
        (Reason::TrustDomainNotFound, message)
    })?;
    if let Some(holder) = &observed.account_holder {
        let message = format!(
            "the ServiceIdentity {}/{} already stands for the ServiceAccount {} in this trust domain; delete one of \
             the two, or set another serviceAccountName in a new one",
            holder.namespace,
            holder.name,
            service_account(&observed.identity)
        );
        return Err((Reason::Conflict, message));
    }
    let namespace = observed.identity.metadata.namespace.as_deref().unwrap_or_default();
    for name in spec.authentication.mtls.iter().flat_map(|mtls| &mtls.dns_names) {
        let rules = &domain.spec.dns_names;
        if !may_claim(name, namespace, &observed.namespace_labels, &observed.cluster_domain, rules) {
            let message = format!(
                "the namespace {namespace} may not claim the DNS name {name}; use <service>.{namespace}.svc, or ask \
                 for a suffix in spec.dnsNames of the TrustDomain {}",
                spec.trust_domain
            );
            return Err((Reason::DnsNameNotAllowed, message));
        }
    }
    if let Some((name, holder)) = observed.held_names.first() {
        let message = format!(
            "the DNS name {name} belongs to the ServiceIdentity {}/{} already; remove it from one of the two",
            holder.namespace, holder.name
        );
        return Err((Reason::DnsNameClaimed, message));
    }
    for broker in &observed.brokers {
        match &broker.environment {
            Some(environment) if *environment != domain.spec.environment => {
                let message = format!(
                    "the BrokerConnection {} belongs to the environment {environment}, the TrustDomain {} to {}; use \
                     a broker of the same environment",
                    broker.name, spec.trust_domain, domain.spec.environment
                );
                return Err((Reason::EnvironmentMismatch, message));
            }
            _ => {}
        }
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
        return Some(Plan::Refuse(Reason::GatewayTrustExpired, message));
    }
    if until.duration_since(created) > GATEWAY_LIMIT {
        let message = format!(
            "expiresAt {until} is more than a year after this object was created; trust through a gateway is for a \
             while only, set an earlier date"
        );
        return Some(Plan::Refuse(Reason::GatewayTrustTooLong, message));
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
    let name = identity.metadata.name.as_deref().unwrap_or_default();
    let spiffe_id = match SpiffeId::new(&domain.spec.domain, namespace, &service_account(identity)) {
        Ok(id) => id,
        Err(message) => return Plan::Refuse(Reason::NameTooLong, message),
    };
    let Some(authority) = &observed.authority else {
        let message = format!(
            "the TrustDomain {} has no authority that can sign; see its conditions",
            identity.spec.trust_domain
        );
        return Plan::Wait(Reason::TrustDomainNotReady, message);
    };
    let subject = subject(identity, &domain.spec.domain);
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
        let decision = decide(&observed.rules, stored.as_ref(), &wanted, observed.seed, observed.now);
        Slot { secret_name, broker, request, inputs, surroundings, decision }
    };
    let request = |dns_names: Vec<String>, key_algorithm| LeafRequest {
        spiffe_id: spiffe_id.clone(),
        subject: subject.clone(),
        dns_names,
        key_algorithm,
        lifetime: observed.rules.lifetime,
    };
    let mut slots = Vec::new();
    let mut waiting = Vec::new();
    if let Some(mtls) = &identity.spec.authentication.mtls {
        let mut dns_names = mtls.dns_names.clone();
        dns_names.sort();
        let request = request(dns_names, mtls.key_algorithm.unwrap_or_default());
        let bundle = authority.signer.bundle_hash.clone();
        slots.push(slot(mtls_secret_name(identity), &observed.stored, None, request, bundle));
    }
    for (index, broker) in observed.brokers.iter().enumerate() {
        match &broker.broker {
            // Kafka's clients take RSA and ECDSA keys in PEM, and nothing else.
            Some(found) => slots.push(slot(
                format!("{name}.{}", broker.name),
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
            || identity.spec.brokers.iter().any(|broker| format!("{name}.{}", broker.name) == **secret)
    };
    let surplus = observed.secrets.iter().filter(|secret| !keep(secret)).cloned().collect();
    Plan::Certificates { spiffe_id, subject, slots, waiting, surplus }
}

fn wait(broker: &ObservedBroker) -> (String, Reason, String) {
    let name = &broker.name;
    match broker.environment {
        None => {
            let message = format!("the BrokerConnection {name} does not exist; create it, or remove it from brokers");
            (name.clone(), Reason::BrokerNotFound, message)
        }
        Some(_) => {
            let message = format!("the BrokerConnection {name} is not set up; see its conditions");
            (name.clone(), Reason::BrokerNotReady, message)
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

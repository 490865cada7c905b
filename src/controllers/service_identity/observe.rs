//! Looks up what an identity depends on, and takes its names. Reads stores only; nothing is decided and no object written here.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::controller::Controller;
use crate::api::{Mtls, Reason, RotationTargetKind, ServiceIdentity, ServiceIdentityStatus, TrustDomain};
use crate::brokers::registry::Broker;
use crate::controllers::shared::authorities::ActiveAuthority;
use crate::controllers::shared::claims::{NameClaim, Scope, is_accepted};
use crate::controllers::shared::kind::ManagedKind;
use crate::domain::altered::AlteredBy;
use crate::domain::claims::Taken;
use crate::domain::identity::{is_own, may_claim};
use crate::domain::in_effect::{InEffect, in_effect};
use crate::domain::name::ObjectRef;
use crate::domain::rotation::{Material, Rules};
use crate::domain::schedule::duration;
use crate::domain::selector::Labels;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::seed;
use crate::kubernetes::uid;

/// The lifetime where the limit of a trust domain cannot be read.
const SHORTEST: SignedDuration = SignedDuration::from_mins(5);

/// A Secret of the identity's own: `None` when it does not exist.
pub type Stored = Option<Material>;

/// A broker that the identity names.
pub struct ObservedBroker {
    pub name: String,
    /// Environment of the `BrokerConnection`, if it exists.
    pub environment: Option<String>,
    /// The broker in use, if its connection could be set up.
    pub broker: Option<Arc<Broker>>,
    pub stored: Stored,
}

/// Everything that the plan depends on.
pub struct Observed {
    pub identity: Arc<ServiceIdentity>,
    pub status: ServiceIdentityStatus,
    pub namespace_labels: Labels,
    pub cluster_domain: String,
    pub trust_domain: Option<TrustDomain>,
    pub authority: Option<Arc<ActiveAuthority>>,
    /// Another identity that holds the ServiceAccount.
    pub account_holder: Option<ObjectRef>,
    /// DNS names that another identity holds.
    pub claimed_names: Vec<(String, ObjectRef)>,
    /// The names that it may claim and other namespaces may claim as well, as they are recorded.
    pub shared_names: BTreeSet<String>,
    /// Whether it had its names before names were recorded.
    pub had_names: bool,
    /// Other objects that may hold a name now that this one let go.
    pub released: BTreeSet<ObjectRef>,
    pub stored: Stored,
    pub brokers: Vec<ObservedBroker>,
    /// Names of all Secrets that this identity controls.
    pub secrets: Vec<String>,
    /// The rotation policy in effect.
    pub rotation: InEffect<Rules>,
    pub seed: u64,
    pub now: Timestamp,
}

impl Observed {
    /// Name of the identity.
    pub fn name(&self) -> &str {
        self.identity.metadata.name.as_deref().unwrap_or_default()
    }

    /// Namespace of the identity.
    pub fn namespace(&self) -> &str {
        self.identity.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Name of the Secret for mutual TLS.
    pub fn mtls_secret(&self) -> String {
        format!("{}-mtls", self.name())
    }

    /// Name of the Secret of the account on a broker.
    pub fn account_secret(&self, broker: &str) -> String {
        format!("{}.{broker}", self.name())
    }

    /// The stored material for mutual TLS, or of the account on a broker (by its index).
    pub fn stored_for(&self, broker: Option<usize>) -> &Stored {
        broker.map_or(&self.stored, |index| &self.brokers[index].stored)
    }
}

/// The claim of an identity on its ServiceAccount.
pub fn account_claim(identity: &ServiceIdentity) -> NameClaim {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    NameClaim::new(Scope::ServiceAccount, &[&identity.spec.trust_domain, namespace, identity.service_account()])
}

/// The claims of an identity on DNS names, with the names.
pub fn dns_claims(identity: &ServiceIdentity) -> impl Iterator<Item = (&String, NameClaim)> {
    let names = identity.spec.authentication.mtls.iter().flat_map(|Mtls { dns_names, .. }| dns_names);
    names.map(|name| (name, NameClaim::new(Scope::DnsName, &[&identity.spec.trust_domain, name])))
}

/// Looks everything up but the names that only one identity may hold.
///
/// # Errors
/// When something that the identity refers to cannot be read.
pub fn observe(controller: &Controller, identity: Arc<ServiceIdentity>) -> Result<Observed, Error> {
    let namespace = identity.metadata.namespace.clone().unwrap_or_default();
    let name = identity.metadata.name.clone().unwrap_or_default();
    let owner = uid(&*identity);
    let owned = controller.certificates.owned_with_prefix(&namespace, &name, &owner);
    let stored = |secret: &str| {
        let found = owned.iter().find(|(known, _)| **known == *secret);
        found.map(|(_, record)| record.facts.clone().unwrap_or_else(altered))
    };
    let trust_domain = controller.trust_domains.store().look_up(None, &identity.spec.trust_domain)?;
    let namespace_labels = controller.namespaces.labels(&namespace);
    let cluster_domain = controller.settings.cluster_domain.clone();
    let mut brokers = Vec::new();
    for reference in &identity.spec.brokers {
        let connection = controller.connections.store().look_up(None, &reference.name)?;
        brokers.push(ObservedBroker {
            name: reference.name.clone(),
            environment: connection.map(|connection| connection.spec.environment),
            broker: controller.brokers.get(&reference.name),
            stored: stored(&format!("{name}.{}", reference.name)),
        });
    }
    let policies = controller.rotation.policies_for(&namespace);
    let mut rotation = in_effect(&policies, RotationTargetKind::ServiceIdentity, &identity.metadata, Rules::new);
    if let Some(longest) = trust_domain.as_ref().and_then(|domain| domain.spec.max_certificate_lifetime.as_deref()) {
        // The API server has checked its form.
        let longest = duration("maxCertificateLifetime", Some(longest), rotation.rules.lifetime);
        rotation.rules.lifetime = rotation.rules.lifetime.min(longest.unwrap_or(SHORTEST));
    }
    Ok(Observed {
        status: controller.handle.status(&identity),
        namespace_labels,
        cluster_domain,
        trust_domain,
        authority: controller.authorities.get(&identity.spec.trust_domain),
        account_holder: None,
        claimed_names: Vec::new(),
        shared_names: BTreeSet::new(),
        had_names: had_names(controller, &identity),
        released: BTreeSet::new(),
        stored: stored(&format!("{name}-mtls")),
        brokers,
        secrets: owned.iter().map(|(secret, _)| secret.to_string()).collect(),
        rotation,
        seed: seed(&*identity),
        now: Timestamp::now(),
        identity,
    })
}

/// Whether an identity was accepted before names were recorded.
fn had_names(controller: &Controller, identity: &ServiceIdentity) -> bool {
    let created = identity.metadata.creation_timestamp.as_ref();
    created.is_some_and(|created| created.0 < controller.records_since) && is_accepted(identity)
}

/// Takes the names that the identity may hold. One that is refused for another reason takes none, which would keep them from others,
/// and keeps what it holds, unless its namespace has left the trust domain.
pub fn take_names(controller: &Controller, observed: &mut Observed, refused: Option<Reason>) {
    let (identity, namespace) = (observed.identity.clone(), observed.namespace().to_owned());
    let account = account_claim(&identity);
    let (mut allowed, mut shared) = (vec![account.clone()], BTreeSet::new());
    let rules = observed.trust_domain.as_ref().map(|domain| domain.spec.dns_names.as_slice()).unwrap_or_default();
    for (name, claim) in dns_claims(&identity) {
        if may_claim(name, &namespace, &observed.namespace_labels, &observed.cluster_domain, rules) {
            if !is_own(name, &namespace, &observed.cluster_domain) {
                shared.insert(claim.key().to_owned());
            }
            allowed.push(claim);
        }
    }
    let (records, owner) = (&controller.claims.records, uid(&*identity));
    if !records.has_room(&namespace, &owner, &shared, observed.had_names) {
        let is_recorded = |name: &str| records.holder(name).is_some_and(|holder| holder == owner);
        allowed.retain(|claim| !shared.contains(claim.key()) || is_recorded(claim.key()));
    }
    let is_allowed = |claim: &NameClaim| refused != Some(Reason::NamespaceNotAllowed) && allowed.contains(claim);
    let (object, claims) = (ObjectRef::of(&*identity), identity.claims());
    let Taken { conflicts, released } = controller.claims.take(&object, &claims, is_allowed, refused.is_some());
    let holder = |claim: &NameClaim| conflicts.iter().find(|(key, _)| key == claim.key()).map(|(_, it)| it.clone());
    observed.account_holder = holder(&account);
    observed.claimed_names =
        dns_claims(&identity).filter_map(|(name, claim)| Some((name.clone(), holder(&claim)?))).collect();
    (observed.shared_names, observed.released) = (shared, released);
}

/// A Secret whose facts cannot be trusted.
fn altered(by: AlteredBy) -> Material {
    Material {
        issued_at: Timestamp::UNIX_EPOCH,
        not_after: Timestamp::UNIX_EPOCH,
        authority: String::new(),
        inputs: String::new(),
        surroundings: String::new(),
        altered_by: Some(by),
        serial_number: String::new(),
        fingerprint: String::new(),
    }
}

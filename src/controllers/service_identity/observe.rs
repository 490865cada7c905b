//! Looks up what concerns an identity. Reads stores only; nothing is decided and nothing written here.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::attached::{policies_for, rules_for};
use super::super::context::{ActiveAuthority, Context};
use super::plan::{Slot, mtls_secret_name};
use crate::api::{RotationTargetKind, ServiceIdentity, ServiceIdentityStatus, TrustDomain};
use crate::brokers::registry::Broker;
use crate::domain::name::Name;
use crate::domain::rotation::{Material, Rules};
use crate::domain::selector::Labels;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::seed;
use crate::kubernetes::uid;

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
    pub identity: ServiceIdentity,
    pub status: ServiceIdentityStatus,
    pub namespace_labels: Labels,
    pub cluster_domain: String,
    pub trust_domain: Option<TrustDomain>,
    pub authority: Option<Arc<ActiveAuthority>>,
    /// Another identity that holds the ServiceAccount.
    pub account_holder: Option<Name>,
    /// DNS names that another identity holds.
    pub held_names: Vec<(String, Name)>,
    pub stored: Stored,
    pub brokers: Vec<ObservedBroker>,
    /// Names of all Secrets that this identity controls.
    pub secrets: Vec<String>,
    /// The rotation policy in force, and its name.
    pub rules: Rules,
    pub policy: String,
    pub seed: u64,
    pub now: Timestamp,
}

impl Observed {
    /// What is stored in a Secret that the plan is about.
    pub fn stored_in(&self, slot: &Slot) -> &Stored {
        slot.broker.map_or(&self.stored, |index| &self.brokers[index].stored)
    }
}

/// Looks everything up.
///
/// # Errors
/// When something that the identity names cannot be read.
pub fn observe(context: &Context, identity: &ServiceIdentity) -> Result<Observed, Error> {
    let namespace = identity.metadata.namespace.clone().unwrap_or_default();
    let name = identity.metadata.name.clone().unwrap_or_default();
    let owner = uid(identity);
    let owned = context.secrets.owned_with_prefix(&namespace, &name, &owner);
    let stored = |secret: &str| {
        let found = owned.iter().find(|(known, _)| **known == *secret);
        found.map(|(_, record)| record.facts.clone().unwrap_or_else(altered))
    };
    let spec = &identity.spec;
    let dns_names = spec.authentication.mtls.iter().flat_map(|mtls| &mtls.dns_names);
    let held_names =
        dns_names.filter_map(|name| Some((name.clone(), context.claims.holder_of_dns_name(identity, name)?))).collect();
    let mut brokers = Vec::new();
    for reference in &spec.brokers {
        let connection = context.stores.brokers.look_up(None, &reference.name)?;
        brokers.push(ObservedBroker {
            name: reference.name.clone(),
            environment: connection.map(|connection| connection.spec.environment),
            broker: context.brokers.get(&reference.name),
            stored: stored(&format!("{name}.{}", reference.name)),
        });
    }
    let policies = policies_for(context, &namespace);
    let (rules, policy) = rules_for(&policies, RotationTargetKind::ServiceIdentity, &identity.metadata, Rules::new);
    Ok(Observed {
        status: context.statuses.identities.current(identity, identity.status.as_ref()),
        namespace_labels: context.namespace_labels(&namespace).unwrap_or_default(),
        cluster_domain: context.settings.cluster_domain.clone(),
        trust_domain: context.stores.trust_domains.look_up(None, &spec.trust_domain)?,
        authority: context.authorities.get(&spec.trust_domain),
        account_holder: context.claims.holder_of_account(identity),
        held_names,
        stored: stored(&mtls_secret_name(identity)),
        brokers,
        secrets: owned.iter().map(|(secret, _)| secret.to_string()).collect(),
        rules,
        policy,
        seed: seed(identity),
        now: Timestamp::now(),
        identity: identity.clone(),
    })
}

/// A Secret whose facts cannot be trusted.
fn altered(by: String) -> Material {
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

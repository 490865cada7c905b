//! Looks up what a topic policy depends on. Reads stores only; nothing is decided and nothing written here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::controller::Controller;
use crate::api::{BrokerConnection, ServiceIdentity, TopicPolicy, TopicPolicyStatus, TrustDomain};
use crate::brokers::registry::Broker;
use crate::controllers::shared::claims::{NameClaim, Scope};
use crate::domain::name::{Name, ObjectRef};
use crate::domain::selector::Labels;
use crate::kubernetes::error::Error;

/// An identity that a grant refers to.
pub struct ObservedIdentity {
    pub identity: ServiceIdentity,
    pub trust_domain: Option<TrustDomain>,
}

/// Everything that the plan depends on.
pub struct Observed {
    pub policy: Arc<TopicPolicy>,
    pub namespace_labels: Labels,
    pub connection: Option<BrokerConnection>,
    pub identities: BTreeMap<Name, ObservedIdentity>,
    /// Consumer groups that another policy holds for consumers of another namespace.
    pub foreign_groups: BTreeMap<String, ObjectRef>,
    pub current: Current,
}

/// What is needed to carry out the plan. Many policies may wait for a broker at once, with nothing else in memory.
pub struct Current {
    /// The status as it was written last.
    pub status: TopicPolicyStatus,
    pub broker: Option<Arc<Broker>>,
    pub now: Timestamp,
}

/// The claim of a policy on a consumer group.
pub fn group_claim(policy: &TopicPolicy, group: &str) -> NameClaim {
    NameClaim::new(Scope::ConsumerGroup, &[&policy.spec.broker, group])
}

/// Looks everything up.
///
/// # Errors
/// When something that the policy refers to cannot be read.
pub fn observe(controller: &Controller, policy: &Arc<TopicPolicy>) -> Result<Observed, Error> {
    let own = policy.metadata.namespace.clone().unwrap_or_default();
    let mut identities = BTreeMap::new();
    for grant in &policy.spec.grants {
        let namespace = grant.identity.namespace.as_deref().unwrap_or(&own);
        let found = controller.identities.store().look_up(Some(namespace), &grant.identity.name)?;
        let Some(identity) = found else { continue };
        let trust_domain = controller.trust_domains.store().look_up(None, &identity.spec.trust_domain)?;
        identities.insert(Name::of(&identity), ObservedIdentity { identity, trust_domain });
    }
    Ok(Observed {
        namespace_labels: controller.namespaces.labels(&own),
        connection: controller.connections.store().look_up(None, &policy.spec.broker)?,
        identities,
        foreign_groups: foreign_groups(controller, policy),
        policy: policy.clone(),
        current: Current {
            status: controller.handle.status(policy),
            broker: controller.brokers.get(&policy.spec.broker),
            now: Timestamp::now(),
        },
    })
}

/// Consumer groups of a policy that an older policy holds for consumers of another namespace.
fn foreign_groups(controller: &Controller, policy: &TopicPolicy) -> BTreeMap<String, ObjectRef> {
    let own = ObjectRef::of(policy);
    let mut foreign = BTreeMap::new();
    for group in policy.spec.grants.iter().filter_map(|grant| grant.consumer_group.as_ref()) {
        let Some(holder) = controller.claims.other_holder(&group_claim(policy, group), &own) else { continue };
        let found = controller.handle.store().find(&holder.name).and_then(Result::ok);
        if found.is_some_and(|found| !consumers(policy, group).is_subset(&consumers(&found, group))) {
            foreign.insert(group.clone(), holder);
        }
    }
    foreign
}

/// The namespaces whose identities consume with a group.
fn consumers(policy: &TopicPolicy, group: &str) -> BTreeSet<String> {
    let own = policy.metadata.namespace.clone().unwrap_or_default();
    let grants = policy.spec.grants.iter().filter(|grant| grant.consumer_group.as_deref() == Some(group));
    grants.map(|grant| grant.identity.namespace.clone().unwrap_or_else(|| own.clone())).collect()
}

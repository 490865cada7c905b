//! Looks up what a topic policy depends on. Reads stores only; nothing is decided and nothing written here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::controller::Controller;
use crate::api::{BrokerConnection, Mode, ServiceIdentity, TopicPolicy, TopicPolicyStatus, TrustDomain};
use crate::brokers::registry::Broker;
use crate::domain::grants::{Bindings, bindings};
use crate::domain::identity::{Subject, namespace_of};
use crate::domain::name::Name;
use crate::domain::selector::Labels;
use crate::kubernetes::error::Error;
use crate::kubernetes::uid;
use crate::stalls::elsewhere;

/// An identity that a grant refers to, or that has rights from before.
pub struct ObservedIdentity {
    pub identity: ServiceIdentity,
    pub trust_domain: Option<TrustDomain>,
    pub namespace_labels: Labels,
}

impl ObservedIdentity {
    /// Its principal at a broker; `None` without a trust domain.
    pub fn principal(&self) -> Option<String> {
        let domain = self.trust_domain.as_ref()?;
        Some(Subject::of(&self.identity, &domain.spec.domain).kafka_principal())
    }
}

/// Everything that the plan depends on.
pub struct Observed {
    pub policy: Arc<TopicPolicy>,
    pub namespace_labels: Labels,
    pub connection: Option<BrokerConnection>,
    pub identities: BTreeMap<Name, ObservedIdentity>,
    /// Grants, by number, to identities of other namespaces that were in force before such identities had to accept them.
    pub accepted_before: BTreeSet<usize>,
    pub current: Current,
}

impl Observed {
    /// The namespace of the policy.
    pub fn namespace(&self) -> &str {
        self.policy.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// What is needed to carry out the plan. Many policies may wait for a broker at once, with nothing else in memory.
pub struct Current {
    /// The status as it was written last.
    pub status: TopicPolicyStatus,
    pub broker: Option<Arc<Broker>>,
    pub now: Timestamp,
}

impl Current {
    /// What the status calls applied. A tenant may have written it.
    pub fn applied(&self) -> Bindings {
        self.status.applied.iter().cloned().collect()
    }
}

/// When a policy was created.
pub fn created(policy: &TopicPolicy) -> Timestamp {
    policy.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0)
}

/// Looks everything up.
///
/// # Errors
/// When something that the policy refers to cannot be read.
pub async fn observe(controller: &Controller, policy: &Arc<TopicPolicy>) -> Result<Observed, Error> {
    let own = policy.metadata.namespace.clone().unwrap_or_default();
    let current = Current {
        status: controller.handle.status(policy),
        broker: controller.brokers.get(&policy.spec.broker),
        now: Timestamp::now(),
    };
    let mut identities = BTreeMap::new();
    for grant in &policy.spec.grants {
        let namespace = grant.identity.namespace.as_deref().unwrap_or(&own);
        let found = controller.identities.store().look_up(Some(namespace), &grant.identity.name)?;
        let Some(identity) = found else { continue };
        identities.insert(Name::of(&identity), look_at(controller, identity)?);
    }
    if policy.spec.mode == Some(Mode::Observe) {
        let (controller, principals) = (controller.clone(), principals(&current.status));
        // It looks at every identity of their namespaces.
        let holders = elsewhere(move || holders(&controller, &principals)).await?;
        identities.extend(holders.into_iter().map(|found| (Name::of(&found.identity), found)));
    }
    let mut observed = Observed {
        namespace_labels: controller.namespaces.labels(&own),
        connection: controller.connections.store().look_up(None, &policy.spec.broker)?,
        identities,
        accepted_before: BTreeSet::new(),
        policy: policy.clone(),
        current,
    };
    observed.accepted_before = accepted_before(&observed).await;
    Ok(observed)
}

fn look_at(controller: &Controller, identity: ServiceIdentity) -> Result<ObservedIdentity, Error> {
    let trust_domain = controller.trust_domains.store().look_up(None, &identity.spec.trust_domain)?;
    let namespace_labels = controller.namespaces.labels(identity.metadata.namespace.as_deref().unwrap_or_default());
    Ok(ObservedIdentity { identity, trust_domain, namespace_labels })
}

/// The principals that have rights through a policy, as its status says.
fn principals(status: &TopicPolicyStatus) -> BTreeSet<String> {
    status.applied.iter().map(|binding| binding.principal.clone()).collect()
}

/// The identities with these principals, although no grant may name them any more: in mode `Observe` their rights may stay.
fn holders(controller: &Controller, principals: &BTreeSet<String>) -> Result<Vec<ObservedIdentity>, Error> {
    let namespaces: BTreeSet<&str> = principals.iter().filter_map(|principal| namespace_of(principal)).collect();
    let mut holders = Vec::new();
    for namespace in namespaces {
        for identity in controller.identities.store().valid(Some(namespace)) {
            let found = look_at(controller, identity)?;
            if found.principal().is_some_and(|principal| principals.contains(&principal)) {
                holders.push(found);
            }
        }
    }
    Ok(holders)
}

async fn accepted_before(observed: &Observed) -> BTreeSet<usize> {
    let (policy, own) = (&observed.policy, observed.namespace());
    let Some(broker) = &observed.current.broker else { return BTreeSet::new() };
    let status = observed.current.applied();
    let mut accepted = BTreeSet::new();
    for (number, grant) in policy.spec.grants.iter().enumerate() {
        let Some(namespace) = grant.identity.namespace.as_deref().filter(|namespace| *namespace != own) else {
            continue;
        };
        let found = observed.identities.get(&Name::new(Some(namespace), &grant.identity.name));
        let Some(principal) = found.and_then(ObservedIdentity::principal) else { continue };
        let rights = bindings(&policy.spec.topic, grant, &principal);
        if broker.session.was_granted_before(&uid(&**policy), created(policy), &rights, &status).await {
            accepted.insert(number);
        }
    }
    accepted
}

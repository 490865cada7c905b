//! Looks up what concerns a topic policy. Reads stores only; nothing is decided and nothing written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::context::Context;
use crate::api::{BrokerConnection, ServiceIdentity, TopicPolicy, TopicPolicyStatus, TrustDomain};
use crate::brokers::registry::Broker;
use crate::domain::name::Name;
use crate::domain::selector::Labels;
use crate::kubernetes::error::Error;

/// An identity that a grant names.
pub struct ObservedIdentity {
    pub identity: ServiceIdentity,
    pub trust_domain: Option<TrustDomain>,
}

/// Everything that the plan depends on.
pub struct Observed {
    pub policy: Arc<TopicPolicy>,
    pub namespace_labels: Labels,
    pub connection: Option<BrokerConnection>,
    /// By namespace and name.
    pub identities: BTreeMap<(String, String), ObservedIdentity>,
    /// Consumer groups that are held by a policy whose consumers live in another namespace.
    pub held_groups: BTreeMap<String, Name>,
    pub standing: Standing,
}

/// What is needed to carry the plan out. Many policies may wait for a broker at once, with nothing else in memory.
pub struct Standing {
    pub status: TopicPolicyStatus,
    pub broker: Option<Arc<Broker>>,
    pub now: Timestamp,
}

/// Looks everything up.
///
/// # Errors
/// When something that the policy names cannot be read.
pub fn observe(context: &Context, policy: &Arc<TopicPolicy>) -> Result<Observed, Error> {
    let own = policy.metadata.namespace.clone().unwrap_or_default();
    let mut identities = BTreeMap::new();
    for grant in &policy.spec.grants {
        let namespace = grant.identity.namespace.clone().unwrap_or_else(|| own.clone());
        let Some(identity) = context.stores.identities.look_up(Some(&namespace), &grant.identity.name)? else {
            continue;
        };
        let trust_domain = context.stores.trust_domains.look_up(None, &identity.spec.trust_domain)?;
        identities.insert((namespace, grant.identity.name.clone()), ObservedIdentity { identity, trust_domain });
    }
    Ok(Observed {
        namespace_labels: context.namespace_labels(&own).unwrap_or_default(),
        connection: context.stores.brokers.look_up(None, &policy.spec.broker)?,
        identities,
        held_groups: context.claims.foreign_groups(policy, |holder| context.stores.topic_policies.find(holder)?.ok()),
        policy: policy.clone(),
        standing: Standing {
            status: context.statuses.topic_policies.current(&**policy, policy.status.as_ref()),
            broker: context.brokers.get(&policy.spec.broker),
            now: Timestamp::now(),
        },
    })
}

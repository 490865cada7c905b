//! Which change wakes which controller. Every handler runs after the store has seen the change.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use crate::api::{BrokerConnection, ServiceIdentity, TopicPolicy, TrustDomain};
use crate::domain::name::Name;
use crate::kubernetes::run::Trigger;
use crate::kubernetes::store::Store;

/// What was last seen of the objects of one kind, as far as others depend on it.
#[derive(Default)]
pub struct Seen {
    /// A digest of the facts of each object: they are compared, and never read.
    digests: Mutex<HashMap<Name, u64>>,
    hasher: RandomState,
}

impl Seen {
    /// Notes what others depend on (`None` for an object that is gone), and says whether it changed.
    pub(super) fn changed(&self, name: &Name, facts: Option<String>) -> bool {
        let mut seen = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = facts.map(|facts| self.hasher.hash_one(facts));
        let before = match facts {
            Some(facts) => seen.insert(name.clone(), facts),
            None => seen.remove(name),
        };
        before != facts
    }
}

/// Generation and deletion: what others see of an object whose spec alone concerns them.
pub(super) fn spec_facts<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    format!("{:?}/{:?}/{}", meta.uid, meta.generation, meta.deletion_timestamp.is_some())
}

fn is_ready(conditions: Option<&[Condition]>) -> bool {
    conditions.unwrap_or_default().iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

pub(super) fn readable<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
    store: &Store<K>,
    name: &Name,
) -> Option<K> {
    store.find(name)?.ok()
}

impl Context {
    /// A trust domain was added, changed or removed.
    pub fn trust_domain_changed(&self, changed: &Name) {
        self.triggers.trust_domains.fire(changed);
        let facts = readable(&self.stores.trust_domains, changed).map(|domain| spec_facts(&domain));
        if facts.is_none() {
            self.authorities.remove(&changed.name);
        }
        if self.seen.trust_domains.changed(changed, facts) {
            self.identities_of_trust_domain(&changed.name);
        }
    }

    /// An identity was added, changed or removed.
    pub fn identity_changed(&self, changed: &Name) {
        self.triggers.identities.fire(changed);
        let found = readable(&self.stores.identities, changed);
        for other in self.claims.identity_changed(changed, found.as_ref()) {
            self.triggers.identities.fire(&other);
        }
        let facts = found.as_ref().map(|identity| {
            let conditions = identity.status.iter().flat_map(|status| &status.conditions);
            let accepted = conditions.filter(|condition| condition.type_ == "Accepted").map(|it| it.message.as_str());
            format!("{}/{:?}/{:?}", spec_facts(identity), identity.metadata.labels, accepted.collect::<Vec<_>>())
        });
        let accounts = found.as_ref().map(|identity| {
            let accounts = identity.status.iter().flat_map(|status| &status.brokers);
            let credentials = accounts.map(|it| it.certificate.as_ref().map(|certificate| &certificate.fingerprint));
            format!("{}/{:?}", spec_facts(identity), credentials.collect::<Vec<_>>())
        });
        if self.seen.accounts.changed(changed, accounts) {
            self.accounts_changed(changed);
        }
        let gone = facts.is_none();
        if self.seen.identities.changed(changed, facts) {
            self.policies_of_identity(changed);
            self.rotation_policies_of(&changed.namespace);
            if gone {
                // A trust domain that is being deleted waits for its last identity.
                self.waiting_trust_domains();
            }
        }
    }

    /// A rotation policy was added, changed or removed.
    pub fn rotation_policy_changed(&self, changed: &Name) {
        self.triggers.rotation_policies.fire(changed);
        let namespace = &*changed.namespace;
        let facts = readable(&self.stores.rotation_policies, changed).map(|policy| spec_facts(&policy));
        if self.seen.rotation_policies.changed(changed, facts) {
            let everywhere = namespace == self.settings.namespace;
            let own = (!everywhere).then_some(namespace);
            fire_all(&self.triggers.identities, self.stores.identities.names(own));
            self.webhooks_of(own);
            self.rotation_policies_of(namespace);
        }
    }

    /// A broker connection was added, changed or removed.
    pub fn broker_changed(&self, changed: &Name) {
        self.triggers.brokers.fire(changed);
        let facts = readable(&self.stores.brokers, changed).map(|connection| spec_facts(&connection));
        if facts.is_none() {
            self.brokers.remove(&changed.name);
        }
        if self.seen.brokers.changed(changed, facts) {
            self.users_of_broker(&changed.name);
        }
    }

    /// A topic policy was added, changed or removed.
    pub fn topic_policy_changed(&self, changed: &Name) {
        self.triggers.topic_policies.fire(changed);
        let found = readable(&self.stores.topic_policies, changed);
        for other in self.claims.topic_policy_changed(changed, found.as_ref()) {
            self.triggers.topic_policies.fire(&other);
        }
        if found.is_none() {
            // A broker connection that is being deleted waits for the last policy with rights on it.
            self.waiting_brokers();
        }
    }

    /// A namespace was added, changed or removed.
    pub fn namespace_changed(&self, changed: &Name) {
        let found = self.stores.namespaces.get(None, &changed.name);
        let facts = found.map(|it| format!("{:?}/{}", it.metadata.labels, it.metadata.deletion_timestamp.is_some()));
        if !self.seen.namespaces.changed(changed, facts) {
            return;
        }
        fire_all(&self.triggers.trust_domains, self.stores.trust_domains.names(None));
        fire_all(&self.triggers.identities, self.stores.identities.names(Some(&changed.name)));
        fire_all(&self.triggers.topic_policies, self.stores.topic_policies.names(Some(&changed.name)));
        self.webhooks_of(Some(&changed.name));
    }

    /// A Secret of the operator's namespace was added, changed or removed.
    pub fn operator_secret_changed(&self, changed: &Name) {
        let secret = &*changed.name;
        let brings =
            |domain: &TrustDomain| domain.spec.issuer.ca.as_ref().is_some_and(|ca| ca.secret_ref.name == *secret);
        fire_where(&self.triggers.trust_domains, &self.stores.trust_domains, brings);
        let uses = |connection: &BrokerConnection| connection.spec.kafka.admin_secret_ref.name == *secret;
        fire_where(&self.triggers.brokers, &self.stores.brokers, uses);
    }

    /// An object that the operator wrote was changed or removed; `owner` is kind and name.
    pub fn owned_changed(&self, namespace: &str, owner: &str) {
        match owner.split_once('/') {
            Some(("ServiceIdentity", name)) => self.triggers.identities.fire(&Name::new(Some(namespace), name)),
            Some(("TrustDomain", name)) => self.triggers.trust_domains.fire(&Name::new(None, name)),
            Some((kind, name)) => self.written_for_webhook(namespace, kind, name),
            None => {}
        }
    }

    /// Wakes all identities of a trust domain.
    pub fn identities_of_trust_domain(&self, name: &str) {
        let of_domain = |identity: &ServiceIdentity| identity.spec.trust_domain == name;
        fire_where(&self.triggers.identities, &self.stores.identities, of_domain);
    }

    /// Wakes all identities and policies that name a broker.
    pub fn users_of_broker(&self, name: &str) {
        fire_where(&self.triggers.identities, &self.stores.identities, |identity| has_account(identity, name));
        self.policies_of_broker(name);
    }

    /// Wakes all policies that name a broker.
    pub fn policies_of_broker(&self, name: &str) {
        let names = |policy: &TopicPolicy| policy.spec.broker == name;
        fire_where(&self.triggers.topic_policies, &self.stores.topic_policies, names);
    }

    /// Wakes the identities and policies that name a broker and are not as they should be.
    pub fn unready_users_of_broker(&self, name: &str) {
        fire_where(&self.triggers.identities, &self.stores.identities, |identity| {
            let conditions = identity.status.as_ref().map(|status| status.conditions.as_slice());
            has_account(identity, name) && !is_ready(conditions)
        });
        fire_where(&self.triggers.topic_policies, &self.stores.topic_policies, |policy| {
            let conditions = policy.status.as_ref().map(|status| status.conditions.as_slice());
            policy.spec.broker == name && !is_ready(conditions)
        });
    }

    /// Wakes everybody: the clock was set, and all that was counted from it is in doubt.
    pub fn clock_was_set(&self) {
        fire_all(&self.triggers.trust_domains, self.stores.trust_domains.names(None));
        fire_all(&self.triggers.brokers, self.stores.brokers.names(None));
        fire_all(&self.triggers.rotation_policies, self.stores.rotation_policies.names(None));
        fire_all(&self.triggers.identities, self.stores.identities.names(None));
        self.webhooks_of(None);
    }

    /// Wakes the rotation policy of this name (`namespace/name`).
    pub fn policy_progressed(&self, policy: &str) {
        if let Some((namespace, name)) = policy.split_once('/') {
            self.triggers.rotation_policies.fire(&Name::new(Some(namespace), name));
        }
    }

    fn policies_of_identity(&self, identity: &Name) {
        fire_all(&self.triggers.topic_policies, self.claims.policies_of_identity(identity));
    }

    /// Wakes the rotation policies that may be attached to objects of a namespace.
    pub(super) fn rotation_policies_of(&self, namespace: &str) {
        fire_all(&self.triggers.rotation_policies, self.stores.rotation_policies.names(Some(namespace)));
        if namespace != self.settings.namespace {
            let everywhere = self.stores.rotation_policies.names(Some(&self.settings.namespace));
            fire_all(&self.triggers.rotation_policies, everywhere);
        }
    }

    fn waiting_trust_domains(&self) {
        let waits = |domain: &TrustDomain| domain.metadata.deletion_timestamp.is_some();
        fire_where(&self.triggers.trust_domains, &self.stores.trust_domains, waits);
    }

    fn waiting_brokers(&self) {
        let waits = |connection: &BrokerConnection| connection.metadata.deletion_timestamp.is_some();
        fire_where(&self.triggers.brokers, &self.stores.brokers, waits);
    }
}

fn has_account(identity: &ServiceIdentity, broker: &str) -> bool {
    identity.spec.brokers.iter().any(|reference| reference.name == broker)
}

pub(super) fn fire_all(trigger: &Trigger, names: Vec<Name>) {
    for name in &names {
        trigger.fire(name);
    }
}

/// Wakes the objects of a store that satisfy a predicate.
pub(super) fn fire_where<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
    trigger: &Trigger,
    store: &Store<K>,
    predicate: impl Fn(&K) -> bool,
) {
    let found = store.iter(None).filter(|(_, object)| object.as_ref().is_ok_and(&predicate));
    found.for_each(|(name, _)| trigger.fire(&name));
}

//! Which change wakes which controller. Every handler runs after the store has seen the change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{Lookup, ObjectRef, Store};

use super::context::{Context, NameClaims};
use super::service_identity::plan::service_account;
use crate::api::{BrokerConnection, RotationPolicy, ServiceIdentity, TopicPolicy, TrustDomain};
use crate::domain::claims::Claimant;
use crate::kubernetes::run::Guarded;

/// What was last seen of the objects of one kind, as far as others depend on it.
#[derive(Default)]
pub struct Seen(Mutex<HashMap<String, String>>);

impl Seen {
    /// Notes what others depend on (`None` for an object that is gone), and says whether it changed.
    fn changed(&self, key: &str, facts: Option<String>) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &facts {
            Some(facts) => seen.insert(key.to_owned(), facts.clone()),
            None => seen.remove(key),
        };
        before != facts
    }
}

/// A claimant for an object.
fn claimant<K: Resource>(object: &K) -> Claimant {
    Claimant {
        created: object.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        name: object.meta().name.clone().unwrap_or_default(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Generation and deletion: what others see of an object whose spec alone concerns them.
fn spec_facts<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    format!("{:?}/{:?}/{}", meta.uid, meta.generation, meta.deletion_timestamp.is_some())
}

fn is_ready(conditions: Option<&[Condition]>) -> bool {
    conditions.unwrap_or_default().iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

fn find<K: Resource<DynamicType = ()> + Clone + 'static>(
    store: &Store<Guarded<K>>,
    reference: &ObjectRef<Guarded<K>>,
) -> Option<K> {
    Context::lookup(store, reference.namespace.as_deref(), &reference.name)
}

impl NameClaims {
    /// The identity that holds a ServiceAccount in a trust domain.
    pub fn holder_of_account(&self, key: &(String, String, String)) -> Option<Claimant> {
        locked(&self.accounts).holder(key).cloned()
    }

    /// The identity that holds a DNS name in a trust domain.
    pub fn holder_of_dns_name(&self, key: &(String, String)) -> Option<Claimant> {
        locked(&self.dns_names).holder(key).cloned()
    }
}

impl Context {
    /// A trust domain was added, changed or removed.
    pub fn trust_domain_changed(&self, reference: &ObjectRef<Guarded<TrustDomain>>) {
        self.triggers.trust_domains.fire_ref(reference);
        let facts = find(&self.stores.trust_domains, reference).map(|domain| spec_facts(&domain));
        if facts.is_none() {
            self.authorities.remove(&reference.name);
        }
        if self.seen.trust_domains.changed(&reference.name, facts) {
            self.identities_of_trust_domain(&reference.name);
        }
    }

    /// An identity was added, changed or removed.
    pub fn identity_changed(&self, reference: &ObjectRef<Guarded<ServiceIdentity>>) {
        self.triggers.identities.fire_ref(reference);
        let namespace = reference.namespace.clone().unwrap_or_default();
        let name = &reference.name;
        let found = find(&self.stores.identities, reference);
        let domain = found.as_ref().map(|identity| identity.spec.trust_domain.clone()).unwrap_or_default();
        let account = found.as_ref().map(|identity| {
            (claimant(identity), BTreeSet::from([(domain.clone(), namespace.clone(), service_account(identity))]))
        });
        let dns_names = found.as_ref().map(|identity| {
            let names = identity.spec.authentication.mtls.iter().flat_map(|mtls| &mtls.dns_names);
            (claimant(identity), names.map(|name| (domain.clone(), name.clone())).collect())
        });
        let mut affected = locked(&self.claims.accounts).update(&namespace, name, account);
        affected.extend(locked(&self.claims.dns_names).update(&namespace, name, dns_names));
        for other in affected {
            self.triggers.identities.fire(Some(&other.namespace), &other.name);
        }
        let key = format!("{namespace}/{name}");
        let facts = found.as_ref().map(|identity| {
            let conditions = identity.status.iter().flat_map(|status| &status.conditions);
            let accepted = conditions.filter(|condition| condition.type_ == "Accepted").map(|it| it.message.as_str());
            format!("{}/{:?}/{:?}", spec_facts(identity), identity.metadata.labels, accepted.collect::<Vec<_>>())
        });
        let gone = facts.is_none();
        if self.seen.identities.changed(&key, facts) {
            self.policies_of_identity(&namespace, name);
            self.rotation_policies_of(&namespace);
            if gone {
                // A trust domain that is being deleted waits for its last identity.
                self.waiting_trust_domains();
            }
        }
    }

    /// A rotation policy was added, changed or removed.
    pub fn rotation_policy_changed(&self, reference: &ObjectRef<Guarded<RotationPolicy>>) {
        self.triggers.rotation_policies.fire_ref(reference);
        let namespace = reference.namespace.clone().unwrap_or_default();
        let facts = find(&self.stores.rotation_policies, reference).map(|policy| spec_facts(&policy));
        if self.seen.rotation_policies.changed(&format!("{namespace}/{}", reference.name), facts) {
            let everywhere = namespace == self.settings.namespace;
            self.identities_where(|identity| {
                everywhere || identity.metadata.namespace.as_deref() == Some(namespace.as_str())
            });
            self.rotation_policies_of(&namespace);
        }
    }

    /// A broker connection was added, changed or removed.
    pub fn broker_changed(&self, reference: &ObjectRef<Guarded<BrokerConnection>>) {
        self.triggers.brokers.fire_ref(reference);
        let facts = find(&self.stores.brokers, reference).map(|connection| spec_facts(&connection));
        if facts.is_none() {
            self.brokers.remove(&reference.name);
        }
        if self.seen.brokers.changed(&reference.name, facts) {
            self.users_of_broker(&reference.name);
        }
    }

    /// A topic policy was added, changed or removed.
    pub fn topic_policy_changed(&self, reference: &ObjectRef<Guarded<TopicPolicy>>) {
        self.triggers.topic_policies.fire_ref(reference);
        let namespace = reference.namespace.clone().unwrap_or_default();
        let found = find(&self.stores.topic_policies, reference);
        let identities = found.as_ref().map(|policy| {
            let grants = policy.spec.grants.iter();
            let named = grants.map(|grant| {
                (grant.identity.namespace.clone().unwrap_or_else(|| namespace.clone()), grant.identity.name.clone())
            });
            (claimant(policy), named.collect())
        });
        locked(&self.claims.identity_policies).update(&namespace, &reference.name, identities);
        let groups = found.as_ref().map(|policy| {
            let groups = policy.spec.grants.iter().filter_map(|grant| grant.consumer_group.clone());
            (claimant(policy), groups.map(|group| (policy.spec.broker.clone(), group)).collect())
        });
        let affected = locked(&self.claims.groups).update(&namespace, &reference.name, groups);
        for other in affected {
            self.triggers.topic_policies.fire(Some(&other.namespace), &other.name);
        }
        if found.is_none() {
            // A broker connection that is being deleted waits for the last policy with rights on it.
            self.waiting_brokers();
        }
    }

    /// A namespace was added, changed or removed.
    pub fn namespace_changed(&self, reference: &ObjectRef<PartialObjectMeta<Namespace>>) {
        let found = self.stores.namespaces.get(reference);
        let facts = found.map(|it| format!("{:?}/{}", it.metadata.labels, it.metadata.deletion_timestamp.is_some()));
        if !self.seen.namespaces.changed(&reference.name, facts) {
            return;
        }
        for domain in self.stores.trust_domains.state() {
            self.triggers.trust_domains.fire_ref(&domain.to_object_ref(()));
        }
        self.identities_where(|identity| identity.metadata.namespace.as_deref() == Some(reference.name.as_str()));
        self.policies_where(|policy| policy.metadata.namespace.as_deref() == Some(reference.name.as_str()));
    }

    /// A Secret of the operator's namespace was added, changed or removed.
    pub fn operator_secret_changed(&self, reference: &ObjectRef<PartialObjectMeta<Secret>>) {
        let name = &reference.name;
        let brings =
            |domain: &TrustDomain| domain.spec.issuer.ca.as_ref().is_some_and(|ca| ca.secret_ref.name == *name);
        for domain in Self::select(&self.stores.trust_domains, brings) {
            self.triggers.trust_domains.fire(None, domain.metadata.name.as_deref().unwrap_or_default());
        }
        let uses = |connection: &BrokerConnection| connection.spec.kafka.admin_secret_ref.name == *name;
        for connection in Self::select(&self.stores.brokers, uses) {
            self.triggers.brokers.fire(None, connection.metadata.name.as_deref().unwrap_or_default());
        }
    }

    /// An object that the operator wrote was changed or removed; `owner` is kind and name.
    pub fn owned_changed(&self, namespace: &str, owner: &str) {
        match owner.split_once('/') {
            Some(("ServiceIdentity", name)) => self.triggers.identities.fire(Some(namespace), name),
            Some(("TrustDomain", name)) => self.triggers.trust_domains.fire(None, name),
            _ => {}
        }
    }

    /// Wakes all identities of a trust domain.
    pub fn identities_of_trust_domain(&self, name: &str) {
        self.identities_where(|identity| identity.spec.trust_domain == name);
    }

    /// Wakes all identities and policies that name a broker.
    pub fn users_of_broker(&self, name: &str) {
        self.identities_where(|identity| identity.spec.brokers.iter().any(|broker| broker.name == name));
        self.policies_of_broker(name);
    }

    /// Wakes all policies that name a broker.
    pub fn policies_of_broker(&self, name: &str) {
        self.policies_where(|policy| policy.spec.broker == name);
    }

    /// Wakes the identities and policies that name a broker and are not as they should be.
    pub fn unready_users_of_broker(&self, name: &str) {
        self.identities_where(|identity| {
            identity.spec.brokers.iter().any(|broker| broker.name == name)
                && !is_ready(identity.status.as_ref().map(|status| status.conditions.as_slice()))
        });
        self.policies_where(|policy| {
            policy.spec.broker == name && !is_ready(policy.status.as_ref().map(|status| status.conditions.as_slice()))
        });
    }

    /// Wakes everybody: the clock was set, and all that was counted from it is in doubt.
    pub fn clock_was_set(&self) {
        for domain in self.stores.trust_domains.state() {
            self.triggers.trust_domains.fire_ref(&domain.to_object_ref(()));
        }
        for broker in self.stores.brokers.state() {
            self.triggers.brokers.fire_ref(&broker.to_object_ref(()));
        }
        for policy in self.stores.rotation_policies.state() {
            self.triggers.rotation_policies.fire_ref(&policy.to_object_ref(()));
        }
        self.identities_where(|_| true);
    }

    /// Wakes the rotation policy of this name (`namespace/name`).
    pub fn policy_progressed(&self, policy: &str) {
        if let Some((namespace, name)) = policy.split_once('/') {
            self.triggers.rotation_policies.fire(Some(namespace), name);
        }
    }

    /// Consumer groups of a policy that an older policy holds for consumers of another namespace, with the holder.
    pub fn foreign_groups(&self, policy: &TopicPolicy) -> BTreeMap<String, Claimant> {
        let namespaces = |policy: &TopicPolicy, group: &str| -> BTreeSet<String> {
            let own = policy.metadata.namespace.clone().unwrap_or_default();
            let grants = policy.spec.grants.iter().filter(|grant| grant.consumer_group.as_deref() == Some(group));
            grants.map(|grant| grant.identity.namespace.clone().unwrap_or_else(|| own.clone())).collect()
        };
        let own = claimant(policy);
        let mut foreign = BTreeMap::new();
        for group in policy.spec.grants.iter().filter_map(|grant| grant.consumer_group.as_ref()) {
            let key = (policy.spec.broker.clone(), group.clone());
            let Some(holder) = locked(&self.claims.groups).holder(&key).cloned() else { continue };
            if holder == own {
                continue;
            }
            let found = Self::lookup(&self.stores.topic_policies, Some(&holder.namespace), &holder.name);
            if found.is_some_and(|found| !namespaces(policy, group).is_subset(&namespaces(&found, group))) {
                foreign.insert(group.clone(), holder);
            }
        }
        foreign
    }

    fn identities_where(&self, predicate: impl Fn(&ServiceIdentity) -> bool) {
        for guarded in self.stores.identities.state() {
            if guarded.0.as_ref().is_ok_and(&predicate) {
                self.triggers.identities.fire_ref(&guarded.to_object_ref(()));
            }
        }
    }

    fn policies_where(&self, predicate: impl Fn(&TopicPolicy) -> bool) {
        for guarded in self.stores.topic_policies.state() {
            if guarded.0.as_ref().is_ok_and(&predicate) {
                self.triggers.topic_policies.fire_ref(&guarded.to_object_ref(()));
            }
        }
    }

    fn policies_of_identity(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        for policy in locked(&self.claims.identity_policies).holders(&key) {
            self.triggers.topic_policies.fire(Some(&policy.namespace), &policy.name);
        }
    }

    fn rotation_policies_of(&self, namespace: &str) {
        for policy in self.stores.rotation_policies.state() {
            let reference = policy.to_object_ref(());
            let from = reference.namespace.as_deref().unwrap_or_default();
            if from == namespace || from == self.settings.namespace {
                self.triggers.rotation_policies.fire_ref(&reference);
            }
        }
    }

    fn waiting_trust_domains(&self) {
        let waits = |domain: &TrustDomain| domain.metadata.deletion_timestamp.is_some();
        for domain in Self::select(&self.stores.trust_domains, waits) {
            self.triggers.trust_domains.fire(None, domain.metadata.name.as_deref().unwrap_or_default());
        }
    }

    fn waiting_brokers(&self) {
        let waits = |connection: &BrokerConnection| connection.metadata.deletion_timestamp.is_some();
        for connection in Self::select(&self.stores.brokers, waits) {
            self.triggers.brokers.fire(None, connection.metadata.name.as_deref().unwrap_or_default());
        }
    }
}

//! Which change wakes which controller. Every handler runs after the store has seen the change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Context, NameClaims};
use super::edges::Concerned;
use super::service_identity::plan::service_account;
use super::webhook::{KeySource, Webhook};
use crate::api::{
    BrokerConnection, IdentityReference, ServiceIdentity, TopicPolicy, TrustDomain, WebhookDestination, WebhookEndpoint,
};
use crate::domain::claims::Claim;
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
    fn changed(&self, name: &Name, facts: Option<String>) -> bool {
        let mut seen = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = facts.map(|facts| self.hasher.hash_one(facts));
        let before = match facts {
            Some(facts) => seen.insert(name.clone(), facts),
            None => seen.remove(name),
        };
        before != facts
    }
}

/// What an object claims.
fn claim<K: Resource>(object: &K, keys: BTreeSet<String>) -> Claim {
    Claim { created: object.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()), keys }
}

// Keys of claims. Of what they are made of only the last may hold a slash.

fn account_key(identity: &ServiceIdentity) -> String {
    let namespace = identity.metadata.namespace.as_deref().unwrap_or_default();
    format!("{}/{namespace}/{}", identity.spec.trust_domain, service_account(identity))
}

fn dns_name_key(identity: &ServiceIdentity, dns_name: &str) -> String {
    format!("{}/{dns_name}", identity.spec.trust_domain)
}

fn group_key(policy: &TopicPolicy, group: &str) -> String {
    format!("{}/{group}", policy.spec.broker)
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

fn readable<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(store: &Store<K>, name: &Name) -> Option<K> {
    store.find(name)?.ok()
}

/// The webhook that something is written for. A route lives in the edge's namespace, and names the webhook's.
fn of_webhook(namespace: &str, name: &str) -> Name {
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    Name::new(Some(namespace), name)
}

/// A webhook as it claims a path: its kind is part of its name, since objects of two kinds may have one name.
fn claimant<W: Webhook>(name: &Name) -> Name {
    Name::new(Some(&name.namespace), &format!("{}/{}", W::kind(&()), name.name))
}

impl NameClaims {
    /// Another identity that holds the ServiceAccount of this one in its trust domain.
    pub fn holder_of_account(&self, identity: &ServiceIdentity) -> Option<Name> {
        let holder = locked(&self.accounts).holder(&account_key(identity)).cloned();
        holder.filter(|holder| *holder != Name::of(identity))
    }

    /// Another webhook that holds the path of this one, as `kind namespace/name`.
    pub fn holder_of_path<W: Webhook>(&self, webhook: &W) -> Option<String> {
        let holder = locked(&self.paths).holder(webhook.path()).cloned();
        let holder = holder.filter(|holder| *holder != claimant::<W>(&Name::of(webhook)))?;
        let (kind, name) = holder.name.split_once('/')?;
        Some(format!("{kind} {}/{name}", holder.namespace))
    }

    /// Another identity that holds a DNS name in the trust domain of this one.
    pub fn holder_of_dns_name(&self, identity: &ServiceIdentity, dns_name: &str) -> Option<Name> {
        let holder = locked(&self.dns_names).holder(&dns_name_key(identity, dns_name)).cloned();
        holder.filter(|holder| *holder != Name::of(identity))
    }
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
        let account = found.as_ref().map(|identity| claim(identity, BTreeSet::from([account_key(identity)])));
        let dns_names = found.as_ref().map(|identity| {
            let names = identity.spec.authentication.mtls.iter().flat_map(|mtls| &mtls.dns_names);
            claim(identity, names.map(|name| dns_name_key(identity, name)).collect())
        });
        let mut affected = locked(&self.claims.accounts).update(changed, account);
        affected.extend(locked(&self.claims.dns_names).update(changed, dns_names));
        for other in &affected {
            self.triggers.identities.fire(other);
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
            self.users_of_accounts::<WebhookEndpoint>(changed);
            self.users_of_accounts::<WebhookDestination>(changed);
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
            fire_all(&self.triggers.webhook_endpoints, self.stores.webhook_endpoints.names(own));
            fire_all(&self.triggers.webhook_destinations, self.stores.webhook_destinations.names(own));
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
        let identities = found.as_ref().map(|policy| {
            let named = policy.spec.grants.iter().map(|grant| &grant.identity);
            let own = &changed.namespace;
            let key =
                |named: &IdentityReference| format!("{}/{}", named.namespace.as_deref().unwrap_or(own), named.name);
            claim(policy, named.map(key).collect())
        });
        locked(&self.claims.identity_policies).update(changed, identities);
        let groups = found.as_ref().map(|policy| {
            let groups = policy.spec.grants.iter().filter_map(|grant| grant.consumer_group.as_ref());
            claim(policy, groups.map(|group| group_key(policy, group)).collect())
        });
        let affected = locked(&self.claims.groups).update(changed, groups);
        for other in &affected {
            self.triggers.topic_policies.fire(other);
        }
        if found.is_none() {
            // A broker connection that is being deleted waits for the last policy with rights on it.
            self.waiting_brokers();
        }
    }

    /// A webhook was added, changed or removed.
    pub fn webhook_changed<W: Webhook>(&self, changed: &Name) {
        W::trigger(&self.triggers).fire(changed);
        let found = readable(W::store(&self.stores), changed);
        if found.is_none() {
            self.gone_webhooks.tell();
        }
        let claimant = claimant::<W>(changed);
        let facts = found.as_ref().map(|webhook| format!("{}/{:?}", spec_facts(webhook), webhook.meta().labels));
        if self.seen.webhooks.changed(&claimant, facts) {
            self.rotation_policies_of(&changed.namespace);
        }
        let path = found.map(|webhook| claim(&webhook, BTreeSet::from([webhook.path().to_owned()])));
        for other in locked(&self.claims.paths).update(&claimant, path) {
            self.owned_changed(&other.namespace, &other.name);
        }
    }

    /// A Secret whose owner gives it to webhooks was added, changed or removed.
    pub fn key_secret_changed(&self, changed: &Name) {
        self.users_of_key_secret::<WebhookEndpoint>(changed);
        self.users_of_key_secret::<WebhookDestination>(changed);
    }

    fn users_of_key_secret<W: Webhook>(&self, secret: &Name) {
        self.webhooks_in::<W>(&secret.namespace, |webhook| {
            let own = matches!(webhook.key_source(), KeySource::External(name) if name == &*secret.name);
            own || webhook.source_secret() == Some(&*secret.name)
        });
    }

    /// Wakes the webhooks of a namespace that are meant.
    fn webhooks_in<W: Webhook>(&self, namespace: &str, meant: impl Fn(&W) -> bool) {
        let found = W::store(&self.stores).iter(Some(namespace));
        let found = found.filter(|(_, webhook)| webhook.as_ref().is_ok_and(&meant));
        found.for_each(|(name, _)| W::trigger(&self.triggers).fire(&name));
    }

    /// Wakes the webhooks that write to topics with the accounts of an identity.
    fn users_of_accounts<W: Webhook>(&self, identity: &Name) {
        self.webhooks_in::<W>(&identity.namespace, |webhook| {
            webhook.kafka().is_some_and(|target| target.service_identity == *identity.name)
        });
    }

    /// A replica of the edge reports anew.
    pub fn edge_reported(&self, concerned: &Concerned) {
        self.webhooks_reported::<WebhookEndpoint>(concerned);
        self.webhooks_reported::<WebhookDestination>(concerned);
    }

    fn webhooks_reported<W: Webhook>(&self, concerned: &Concerned) {
        let (trigger, store) = (W::trigger(&self.triggers), W::store(&self.stores));
        match concerned {
            Concerned::Everybody => fire_all(trigger, store.names(None)),
            Concerned::These(uids) if uids.is_empty() => {}
            Concerned::These(uids) => {
                fire_where(trigger, store, |webhook| webhook.meta().uid.as_ref().is_some_and(|uid| uids.contains(uid)));
            }
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
        fire_all(&self.triggers.webhook_endpoints, self.stores.webhook_endpoints.names(Some(&changed.name)));
        fire_all(&self.triggers.webhook_destinations, self.stores.webhook_destinations.names(Some(&changed.name)));
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
            Some(("WebhookEndpoint", name)) => self.triggers.webhook_endpoints.fire(&of_webhook(namespace, name)),
            Some(("WebhookDestination", name)) => self.triggers.webhook_destinations.fire(&of_webhook(namespace, name)),
            Some(("TrustDomain", name)) => self.triggers.trust_domains.fire(&Name::new(None, name)),
            _ => {}
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
        fire_all(&self.triggers.webhook_endpoints, self.stores.webhook_endpoints.names(None));
        fire_all(&self.triggers.webhook_destinations, self.stores.webhook_destinations.names(None));
    }

    /// Wakes the rotation policy of this name (`namespace/name`).
    pub fn policy_progressed(&self, policy: &str) {
        if let Some((namespace, name)) = policy.split_once('/') {
            self.triggers.rotation_policies.fire(&Name::new(Some(namespace), name));
        }
    }

    /// Consumer groups of a policy that an older policy holds for consumers of another namespace, with the holder.
    pub fn foreign_groups(&self, policy: &TopicPolicy) -> BTreeMap<String, Name> {
        let namespaces = |policy: &TopicPolicy, group: &str| -> BTreeSet<String> {
            let own = policy.metadata.namespace.clone().unwrap_or_default();
            let grants = policy.spec.grants.iter().filter(|grant| grant.consumer_group.as_deref() == Some(group));
            grants.map(|grant| grant.identity.namespace.clone().unwrap_or_else(|| own.clone())).collect()
        };
        let own = Name::of(policy);
        let mut foreign = BTreeMap::new();
        for group in policy.spec.grants.iter().filter_map(|grant| grant.consumer_group.as_ref()) {
            let holder = locked(&self.claims.groups).holder(&group_key(policy, group)).cloned();
            let Some(holder) = holder.filter(|holder| *holder != own) else { continue };
            let found = readable(&self.stores.topic_policies, &holder);
            if found.is_some_and(|found| !namespaces(policy, group).is_subset(&namespaces(&found, group))) {
                foreign.insert(group.clone(), holder);
            }
        }
        foreign
    }

    fn policies_of_identity(&self, identity: &Name) {
        let policies = locked(&self.claims.identity_policies);
        policies.holders(&identity.to_string()).for_each(|policy| self.triggers.topic_policies.fire(policy));
    }

    /// Wakes the rotation policies that may be attached to objects of a namespace.
    fn rotation_policies_of(&self, namespace: &str) {
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

fn fire_all(trigger: &Trigger, names: Vec<Name>) {
    for name in &names {
        trigger.fire(name);
    }
}

/// Wakes the objects of a store that satisfy a predicate.
fn fire_where<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(
    trigger: &Trigger,
    store: &Store<K>,
    predicate: impl Fn(&K) -> bool,
) {
    let found = store.iter(None).filter(|(_, object)| object.as_ref().is_ok_and(&predicate));
    found.for_each(|(name, _)| trigger.fire(&name));
}

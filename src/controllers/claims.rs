//! What objects claim that only one may hold, and who holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::Resource;

use super::service_identity::plan::service_account;
use super::webhook::Webhook;
use crate::api::{IdentityReference, ServiceIdentity, TopicPolicy};
use crate::domain::claims::{Claim, Claims};
use crate::domain::name::Name;

/// Names that only one object may hold.
#[derive(Default)]
pub struct NameClaims {
    /// Of ServiceAccounts: trust domain, namespace, ServiceAccount.
    accounts: Mutex<Claims>,
    /// Of DNS names: trust domain, name.
    dns_names: Mutex<Claims>,
    /// Of consumer groups: broker, group; held by a policy for the namespaces of its consumers.
    groups: Mutex<Claims>,
    /// Of paths at the edge.
    paths: Mutex<Claims>,
    /// Not exclusive: the policies that name an identity, by its namespace and name.
    identity_policies: Mutex<Claims>,
}

impl NameClaims {
    /// Takes up what an identity claims now, `None` when it is gone, and returns the others whose standing that may change.
    pub fn identity_changed(&self, changed: &Name, identity: Option<&ServiceIdentity>) -> BTreeSet<Name> {
        let account = identity.map(|identity| claim(identity, BTreeSet::from([account_key(identity)])));
        let dns_names = identity.map(|identity| {
            let names = identity.spec.authentication.mtls.iter().flat_map(|mtls| &mtls.dns_names);
            claim(identity, names.map(|name| dns_name_key(identity, name)).collect())
        });
        let mut affected = locked(&self.accounts).update(changed, account);
        affected.extend(locked(&self.dns_names).update(changed, dns_names));
        affected
    }

    /// The same for a policy.
    pub fn topic_policy_changed(&self, changed: &Name, policy: Option<&TopicPolicy>) -> BTreeSet<Name> {
        let identities = policy.map(|policy| {
            let named = policy.spec.grants.iter().map(|grant| &grant.identity);
            let own = &changed.namespace;
            let key =
                |named: &IdentityReference| format!("{}/{}", named.namespace.as_deref().unwrap_or(own), named.name);
            claim(policy, named.map(key).collect())
        });
        locked(&self.identity_policies).update(changed, identities);
        let groups = policy.map(|policy| {
            let groups = policy.spec.grants.iter().filter_map(|grant| grant.consumer_group.as_ref());
            claim(policy, groups.map(|group| group_key(policy, group)).collect())
        });
        locked(&self.groups).update(changed, groups)
    }

    /// The same for a webhook; the others come as `kind/name`.
    pub fn webhook_changed<W: Webhook>(&self, changed: &Name, webhook: Option<&W>) -> BTreeSet<Name> {
        let path = webhook.map(|webhook| claim(webhook, BTreeSet::from([webhook.path().to_owned()])));
        locked(&self.paths).update(&claimant::<W>(changed), path)
    }

    /// Another identity that holds the ServiceAccount of this one in its trust domain.
    pub fn holder_of_account(&self, identity: &ServiceIdentity) -> Option<Name> {
        holder(&self.accounts, &account_key(identity), &Name::of(identity))
    }

    /// Another identity that holds a DNS name in the trust domain of this one.
    pub fn holder_of_dns_name(&self, identity: &ServiceIdentity, dns_name: &str) -> Option<Name> {
        holder(&self.dns_names, &dns_name_key(identity, dns_name), &Name::of(identity))
    }

    /// Another webhook that holds the path of this one, as `kind namespace/name`.
    pub fn holder_of_path<W: Webhook>(&self, webhook: &W) -> Option<String> {
        let holder = holder(&self.paths, webhook.path(), &claimant::<W>(&Name::of(webhook)))?;
        let (kind, name) = holder.name.split_once('/')?;
        Some(format!("{kind} {}/{name}", holder.namespace))
    }

    /// Consumer groups of a policy that an older policy holds for consumers of another namespace, with the holder.
    pub fn foreign_groups(
        &self,
        policy: &TopicPolicy,
        find: impl Fn(&Name) -> Option<TopicPolicy>,
    ) -> BTreeMap<String, Name> {
        let own = Name::of(policy);
        let mut foreign = BTreeMap::new();
        for group in policy.spec.grants.iter().filter_map(|grant| grant.consumer_group.as_ref()) {
            let Some(holder) = holder(&self.groups, &group_key(policy, group), &own) else { continue };
            if find(&holder).is_some_and(|found| !consumers(policy, group).is_subset(&consumers(&found, group))) {
                foreign.insert(group.clone(), holder);
            }
        }
        foreign
    }

    /// The policies that name an identity.
    pub fn policies_of_identity(&self, identity: &Name) -> Vec<Name> {
        locked(&self.identity_policies).holders(&identity.to_string()).cloned().collect()
    }
}

/// The namespaces whose identities consume with a group.
fn consumers(policy: &TopicPolicy, group: &str) -> BTreeSet<String> {
    let own = policy.metadata.namespace.clone().unwrap_or_default();
    let grants = policy.spec.grants.iter().filter(|grant| grant.consumer_group.as_deref() == Some(group));
    grants.map(|grant| grant.identity.namespace.clone().unwrap_or_else(|| own.clone())).collect()
}

/// Who holds a key, unless it is oneself.
fn holder(claims: &Mutex<Claims>, key: &str, own: &Name) -> Option<Name> {
    locked(claims).holder(key).filter(|holder| *holder != own).cloned()
}

/// What an object claims.
fn claim<K: Resource>(object: &K, keys: BTreeSet<String>) -> Claim {
    Claim { created: object.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()), keys }
}

/// A webhook as it claims a path: its kind is part of its name, since objects of two kinds may have one name.
pub fn claimant<W: Webhook>(name: &Name) -> Name {
    Name::new(Some(&name.namespace), &format!("{}/{}", W::kind(&()), name.name))
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

fn locked(claims: &Mutex<Claims>) -> MutexGuard<'_, Claims> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

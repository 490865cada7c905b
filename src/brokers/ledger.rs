//! The bindings that policies claim on a broker, and the bindings that the broker has. Pure. A binding is in memory once,
//! however many policies claim it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::records::Records;
use super::{Holdings, MAX_LISTED};
use crate::api::{AppliedBinding, BindingList, BindingResource};
use crate::domain::grants::Bindings;
use crate::domain::identity::namespace_of;

/// The claims of one policy.
#[derive(Debug, Default)]
struct Claims {
    bindings: Box<[Arc<AppliedBinding>]>,
    /// Whether the policy asks for them; otherwise it only keeps them, or they are known from its record.
    asked: bool,
}

/// By how many policies a binding is claimed.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: u32,
    asked: u32,
}

/// Which policy claims which bindings.
#[derive(Debug, Default)]
pub struct Ledger {
    by_policy: HashMap<String, Claims>,
    counts: HashMap<Arc<AppliedBinding>, Count>,
    /// The namespaces that consume as a group, and with how many bindings.
    groups: HashMap<Arc<str>, BTreeMap<Box<str>, u32>>,
    /// How often a namespace stopped consuming as a group.
    released: u64,
}

/// What claims change in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Add,
    Remove,
}

impl Ledger {
    /// A ledger with the claims that follow from the records.
    #[must_use]
    pub fn new(records: &Records) -> Self {
        let mut ledger = Self::default();
        for (policy, record) in records.iter() {
            ledger.replace(policy, record.bindings().cloned().collect(), false);
        }
        ledger
    }

    /// Replaces the claims of a policy by what it asks for, or only keeps, and returns whether they changed.
    pub fn set(&mut self, policy: &str, bindings: &Bindings, asked: bool) -> bool {
        let before = self.by_policy.get(policy);
        let is_same = before.is_some_and(|it| it.asked == asked && it.bindings.iter().map(AsRef::as_ref).eq(bindings));
        if is_same || (before.is_none() && bindings.is_empty()) {
            return false;
        }
        let shared = bindings.iter().map(|binding| self.share(binding)).collect();
        self.replace(policy, shared, asked);
        true
    }

    /// Drops the claims of a policy that does not exist any more. Returns whether it had any.
    pub fn remove(&mut self, policy: &str) -> bool {
        let Some(before) = self.by_policy.remove(policy) else { return false };
        self.count(&before, Direction::Remove);
        true
    }

    fn replace(&mut self, policy: &str, bindings: Box<[Arc<AppliedBinding>]>, asked: bool) {
        let claims = Claims { bindings, asked };
        self.count(&claims, Direction::Add);
        let before = if claims.bindings.is_empty() {
            self.by_policy.remove(policy)
        } else {
            self.by_policy.insert(policy.to_owned(), claims)
        };
        if let Some(before) = before {
            self.count(&before, Direction::Remove);
        }
    }

    fn count(&mut self, claims: &Claims, direction: Direction) {
        for binding in &claims.bindings {
            let count = self.counts.entry(binding.clone()).or_default();
            let asked = u32::from(claims.asked);
            match direction {
                Direction::Add => (count.all, count.asked) = (count.all + 1, count.asked + asked),
                Direction::Remove => (count.all, count.asked) = (count.all - 1, count.asked - asked),
            }
            if count.all == 0 {
                self.counts.remove(binding);
            }
            if let Some((group, namespace)) = consumer(binding) {
                self.count_group(group, namespace, direction);
            }
        }
    }

    fn count_group(&mut self, group: &str, namespace: &str, direction: Direction) {
        match direction {
            Direction::Add => {
                let namespaces = self.groups.entry(group.into()).or_default();
                *namespaces.entry(namespace.into()).or_insert(0) += 1;
            }
            Direction::Remove => {
                let Some(namespaces) = self.groups.get_mut(group) else { return };
                if let Some(count) = namespaces.get_mut(namespace) {
                    *count -= 1;
                }
                let before = namespaces.len();
                namespaces.retain(|_, count| *count > 0);
                self.released += u64::from(namespaces.len() < before);
                if namespaces.is_empty() {
                    self.groups.remove(group);
                }
            }
        }
    }

    /// Whether a namespace consumes as a group.
    #[must_use]
    pub fn consumes(&self, group: &str, namespace: &str) -> bool {
        self.groups.get(group).is_some_and(|namespaces| namespaces.contains_key(namespace))
    }

    /// A namespace that consumes as a group.
    #[must_use]
    pub fn consumer(&self, group: &str) -> Option<&str> {
        self.groups.get(group)?.keys().next().map(AsRef::as_ref)
    }

    /// How often a namespace stopped consuming as a group: then another one may.
    #[must_use]
    pub fn groups_released(&self) -> u64 {
        self.released
    }

    /// The shared copy of a binding, or a new one if no policy claims it.
    #[must_use]
    pub fn share(&self, binding: &AppliedBinding) -> Arc<AppliedBinding> {
        self.counts.get_key_value(binding).map_or_else(|| Arc::new(binding.clone()), |(known, _)| known.clone())
    }

    /// Whether any policy claims a binding.
    #[must_use]
    pub fn needs(&self, binding: &AppliedBinding) -> bool {
        self.counts.contains_key(binding)
    }

    /// Whether a policy other than this one claims a binding.
    #[must_use]
    pub fn needs_besides(&self, binding: &AppliedBinding, policy: &str) -> bool {
        let claims = self.by_policy.get(policy);
        let own = claims.is_some_and(|claims| claims.bindings.iter().any(|claim| **claim == *binding));
        self.counts.get(binding).is_some_and(|count| count.all > u32::from(own))
    }

    /// Whether a policy asks for a binding. A record alone is no reason to add it.
    #[must_use]
    pub fn is_asked_for(&self, binding: &AppliedBinding) -> bool {
        self.counts.get(binding).is_some_and(|count| count.asked > 0)
    }

    /// The policies that ask for some of these bindings, each with those that it asks for.
    pub fn askers<'a>(&'a self, bindings: &'a Bindings) -> impl Iterator<Item = (&'a str, Vec<Arc<AppliedBinding>>)> {
        self.by_policy.iter().filter(|(_, claims)| claims.asked).filter_map(|(policy, claims)| {
            let asked: Vec<_> =
                claims.bindings.iter().filter(|binding| bindings.contains(&***binding)).cloned().collect();
            (!asked.is_empty()).then_some((policy.as_str(), asked))
        })
    }
}

/// The consumer group that a binding lets a service read as, and the namespace of the service.
pub fn consumer(binding: &AppliedBinding) -> Option<(&str, &str)> {
    let namespace = (binding.resource == BindingResource::Group).then(|| namespace_of(&binding.principal))??;
    Some((&binding.name, namespace))
}

/// The cached ACLs of a broker.
#[derive(Debug, Default)]
pub struct BrokerState {
    bindings: HashSet<Arc<AppliedBinding>>,
    foreign: Vec<String>,
}

impl BrokerState {
    /// From a list of the broker.
    #[must_use]
    pub fn new(listed: Holdings, ledger: &Ledger) -> Self {
        let bindings = listed.bindings.iter().map(|binding| ledger.share(binding)).collect();
        Self { bindings, foreign: listed.foreign }
    }

    /// Whether the broker has a binding.
    #[must_use]
    pub fn contains(&self, binding: &AppliedBinding) -> bool {
        self.bindings.contains(binding)
    }

    /// The binding as the broker has it.
    #[must_use]
    pub fn get(&self, binding: &AppliedBinding) -> Option<Arc<AppliedBinding>> {
        self.bindings.get(binding).cloned()
    }

    /// Notes that a binding was created.
    pub fn insert(&mut self, binding: Arc<AppliedBinding>) {
        self.bindings.insert(binding);
    }

    /// Notes that a binding was deleted.
    pub fn remove(&mut self, binding: &AppliedBinding) {
        self.bindings.remove(binding);
    }

    /// How many claimed bindings the broker has.
    #[must_use]
    pub fn applied(&self, ledger: &Ledger) -> u32 {
        count(ledger.counts.keys().filter(|binding| self.contains(binding)).count())
    }

    /// The claimed bindings that the broker lacks.
    #[must_use]
    pub fn missing(&self, ledger: &Ledger) -> Bindings {
        let missing = ledger.counts.keys().filter(|binding| !self.contains(binding));
        missing.map(|binding| AppliedBinding::clone(binding)).collect()
    }

    /// The ACLs that no policy claims.
    #[must_use]
    pub fn unmanaged(&self, ledger: &Ledger) -> BindingList {
        let unclaimed: Vec<&Arc<AppliedBinding>> =
            self.bindings.iter().filter(|binding| !ledger.needs(binding)).collect();
        listed(unclaimed.iter().map(ToString::to_string).chain(self.foreign.clone()).collect())
    }
}

/// The bindings that a broker had and lost. A binding that was never there is not drift: it is new, or the broker refuses it.
#[derive(Debug, Default)]
pub struct DriftTracker {
    /// How many bindings were found missing since the session began.
    pub found: u64,
    /// How many of them were created again.
    pub repaired: u64,
    /// Whether a comparison was made before. At the first one, only the status of the policies says which bindings the
    /// broker had.
    compared: bool,
    lost: BTreeSet<AppliedBinding>,
}

impl DriftTracker {
    /// Adds the bindings that a comparison found missing. `before` is the state before the comparison.
    pub fn add_missing(&mut self, missing: &Bindings, before: &BrokerState) {
        for binding in missing {
            if (!self.compared || before.contains(binding)) && self.lost.insert(binding.clone()) {
                self.found += 1;
            }
        }
        self.compared = true;
    }

    /// Removes the bindings that the broker has again, and those that no policy claims any more.
    pub fn remove_resolved(&mut self, ledger: &Ledger, broker: &BrokerState) {
        let repaired = &mut self.repaired;
        self.lost.retain(|binding| {
            let back = broker.contains(binding);
            *repaired += u64::from(back);
            !back && ledger.needs(binding)
        });
    }

    /// The bindings that are still missing.
    #[must_use]
    pub fn lost(&self) -> BindingList {
        listed(self.lost.iter().map(ToString::to_string).collect())
    }
}

fn listed(mut descriptions: Vec<String>) -> BindingList {
    let count = count(descriptions.len());
    descriptions.sort_unstable();
    descriptions.truncate(MAX_LISTED);
    BindingList { count, first: descriptions }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BindingOperation, BindingPattern, BindingResource};

    fn binding(name: &str) -> AppliedBinding {
        AppliedBinding {
            principal: "User:CN=orders".into(),
            operation: BindingOperation::Write,
            resource: BindingResource::Topic,
            pattern: BindingPattern::Literal,
            name: name.into(),
        }
    }

    fn claim(names: &[&str]) -> Bindings {
        names.iter().map(|name| binding(name)).collect()
    }

    #[test]
    fn a_binding_is_needed_until_its_last_claim_is_gone() {
        let mut ledger = Ledger::default();
        assert!(ledger.set("one", &claim(&["a", "b"]), true));
        assert!(!ledger.set("one", &claim(&["a", "b"]), true), "the same claims again");
        ledger.set("two", &claim(&["a"]), true);
        assert!(ledger.needs_besides(&binding("a"), "one") && ledger.needs_besides(&binding("a"), "two"));
        assert!(!ledger.needs_besides(&binding("b"), "one") && ledger.needs_besides(&binding("b"), "two"));
        ledger.set("one", &Bindings::new(), true);
        assert!(ledger.needs(&binding("a")) && !ledger.needs(&binding("b")));
        ledger.set("two", &Bindings::new(), true);
        assert!(ledger.counts.is_empty());
    }

    #[test]
    fn a_group_is_in_the_way_of_other_namespaces_until_it_is_released() {
        let group = |namespace: &str| AppliedBinding {
            principal: format!("User:CN=app,OU={namespace},O=demo"),
            resource: BindingResource::Group,
            ..binding("settle")
        };
        let mut ledger = Ledger::default();
        ledger.set("one", &[group("shop")].into(), true);
        assert_eq!((ledger.consumer("settle"), ledger.consumer("other")), (Some("shop"), None));
        assert!(ledger.consumes("settle", "shop") && !ledger.consumes("settle", "evil"));
        ledger.set("two", &[group("shop")].into(), true);
        ledger.set("one", &Bindings::new(), true);
        assert_eq!((ledger.groups_released(), ledger.consumer("settle")), (0, Some("shop")));
        assert!(ledger.remove("two"));
        assert_eq!((ledger.groups_released(), ledger.consumer("settle")), (1, None));
        assert!(ledger.groups.is_empty());
    }

    #[test]
    fn only_a_binding_that_was_there_is_drift() {
        let mut ledger = Ledger::default();
        ledger.set("one", &claim(&["a"]), true);
        let (mut drift, mut broker) = (DriftTracker::default(), BrokerState::default());
        drift.add_missing(&broker.missing(&ledger), &BrokerState::default());
        assert_eq!(
            (drift.found, drift.lost().count),
            (1, 1),
            "recorded as applied, and missing at the first comparison"
        );
        broker.insert(ledger.share(&binding("a")));
        drift.remove_resolved(&ledger, &broker);
        assert_eq!((drift.repaired, drift.lost().count), (1, 0));
        ledger.set("two", &claim(&["b"]), true);
        drift.add_missing(&broker.missing(&ledger), &broker);
        assert_eq!(drift.found, 1, "a new claim is not drift");
        let empty = BrokerState::default();
        drift.add_missing(&empty.missing(&ledger), &broker);
        drift.add_missing(&empty.missing(&ledger), &empty);
        assert_eq!(
            (drift.found, drift.lost().first),
            (2, vec![binding("a").to_string()]),
            "counted once, not at every comparison"
        );
        ledger.set("one", &Bindings::new(), true);
        drift.remove_resolved(&ledger, &empty);
        assert_eq!((drift.repaired, drift.lost().count), (1, 0), "no policy claims it any more");
    }

    #[test]
    fn acls_of_the_broker_are_compared_with_the_claims() {
        let mut ledger = Ledger::default();
        ledger.set("one", &claim(&["a", "b"]), true);
        let listed = Holdings { bindings: claim(&["b", "c"]), foreign: vec!["a denial".into()] };
        let mut broker = BrokerState::new(listed, &ledger);
        assert_eq!(broker.missing(&ledger), claim(&["a"]));
        let unmanaged = broker.unmanaged(&ledger);
        assert_eq!(unmanaged.count, 2);
        assert_eq!(unmanaged.first, ["User:CN=orders: Write on topic c", "a denial"]);
        broker.insert(ledger.share(&binding("a")));
        assert!(broker.missing(&ledger).is_empty());
        assert!(Arc::strong_count(&ledger.share(&binding("a"))) > 3, "one shared copy");
    }
}

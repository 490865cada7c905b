//! The bindings that policies claim on a broker, and the bindings that the broker has. Pure. A binding is in memory once,
//! however many policies claim it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Holdings, MAX_LISTED};
use crate::api::{AppliedBinding, BindingList};
use crate::domain::grants::Bindings;

/// The claimed bindings, by the UID of the policy.
pub type ClaimedBindings = HashMap<String, Bindings>;

/// Which policy claims which bindings.
#[derive(Debug, Default)]
pub struct Ledger {
    by_policy: HashMap<String, Box<[Arc<AppliedBinding>]>>,
    /// By how many policies each binding is claimed.
    counts: HashMap<Arc<AppliedBinding>, u32>,
}

impl Ledger {
    /// A ledger with these claims.
    #[must_use]
    pub fn new(claims: ClaimedBindings) -> Self {
        let mut ledger = Self::default();
        for (policy, bindings) in claims {
            ledger.set(&policy, &bindings);
        }
        ledger
    }

    /// Replaces the claims of a policy, and returns whether they changed.
    pub fn set(&mut self, policy: &str, bindings: &Bindings) -> bool {
        let before = self.by_policy.get(policy).map(AsRef::as_ref).unwrap_or_default();
        if before.iter().map(AsRef::as_ref).eq(bindings) {
            return false;
        }
        let claimed: Box<[_]> = bindings.iter().map(|binding| self.share(binding)).collect();
        for binding in &claimed {
            *self.counts.entry(binding.clone()).or_insert(0) += 1;
        }
        let before = if claimed.is_empty() {
            self.by_policy.remove(policy)
        } else {
            self.by_policy.insert(policy.to_owned(), claimed)
        };
        for binding in before.into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&binding) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&binding);
                }
            }
        }
        true
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
        let own = self.by_policy.get(policy).is_some_and(|claims| claims.iter().any(|claim| **claim == *binding));
        self.counts.get(binding).is_some_and(|count| *count > u32::from(own))
    }
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
        assert!(ledger.set("one", &claim(&["a", "b"])));
        assert!(!ledger.set("one", &claim(&["a", "b"])), "the same claims again");
        ledger.set("two", &claim(&["a"]));
        assert!(ledger.needs_besides(&binding("a"), "one") && ledger.needs_besides(&binding("a"), "two"));
        assert!(!ledger.needs_besides(&binding("b"), "one") && ledger.needs_besides(&binding("b"), "two"));
        ledger.set("one", &Bindings::new());
        assert!(ledger.needs(&binding("a")) && !ledger.needs(&binding("b")));
        ledger.set("two", &Bindings::new());
        assert!(ledger.counts.is_empty());
    }

    #[test]
    fn only_a_binding_that_was_there_is_drift() {
        let mut ledger = Ledger::default();
        ledger.set("one", &claim(&["a"]));
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
        ledger.set("two", &claim(&["b"]));
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
        ledger.set("one", &Bindings::new());
        drift.remove_resolved(&ledger, &empty);
        assert_eq!((drift.repaired, drift.lost().count), (1, 0), "no policy claims it any more");
    }

    #[test]
    fn acls_of_the_broker_are_compared_with_the_claims() {
        let mut ledger = Ledger::default();
        ledger.set("one", &claim(&["a", "b"]));
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

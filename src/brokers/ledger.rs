//! What every policy claims on a broker, and what the broker holds. Pure. A binding is kept in memory once, however
//! many policies claim it and whether or not the broker holds it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Holdings, LISTED};
use crate::api::{AppliedBinding, BindingList};
use crate::domain::grants::Bindings;

/// Claims by the UID of a policy.
pub type Claims = HashMap<String, Bindings>;

/// Who claims what.
#[derive(Debug, Default)]
pub struct Ledger {
    by_policy: HashMap<String, Box<[Arc<AppliedBinding>]>>,
    counts: HashMap<Arc<AppliedBinding>, u32>,
}

impl Ledger {
    /// A ledger with these claims.
    #[must_use]
    pub fn new(claims: Claims) -> Self {
        let mut ledger = Self::default();
        for (policy, bindings) in claims {
            ledger.set(&policy, &bindings);
        }
        ledger
    }

    /// Replaces the claims of a policy, and says whether they are others than before.
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

    /// The one copy of a binding.
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

/// What a broker holds, as far as is known.
#[derive(Debug, Default)]
pub struct Held {
    bindings: HashSet<Arc<AppliedBinding>>,
    foreign: Vec<String>,
}

impl Held {
    /// What the broker has listed.
    #[must_use]
    pub fn new(listed: Holdings, ledger: &Ledger) -> Self {
        let bindings = listed.bindings.iter().map(|binding| ledger.share(binding)).collect();
        Self { bindings, foreign: listed.foreign }
    }

    /// Whether the broker holds a binding.
    #[must_use]
    pub fn contains(&self, binding: &AppliedBinding) -> bool {
        self.bindings.contains(binding)
    }

    /// A binding was added.
    pub fn insert(&mut self, binding: Arc<AppliedBinding>) {
        self.bindings.insert(binding);
    }

    /// A binding was removed.
    pub fn remove(&mut self, binding: &AppliedBinding) {
        self.bindings.remove(binding);
    }

    /// How many bindings are claimed and held.
    #[must_use]
    pub fn applied(&self, ledger: &Ledger) -> u32 {
        count(ledger.counts.keys().filter(|binding| self.contains(binding)).count())
    }

    /// What is claimed and the broker lacks.
    #[must_use]
    pub fn missing(&self, ledger: &Ledger) -> Bindings {
        let missing = ledger.counts.keys().filter(|binding| !self.contains(binding));
        missing.map(|binding| AppliedBinding::clone(binding)).collect()
    }

    /// What the broker holds and nobody claims.
    #[must_use]
    pub fn unmanaged(&self, ledger: &Ledger) -> BindingList {
        let unclaimed: Vec<&Arc<AppliedBinding>> =
            self.bindings.iter().filter(|binding| !ledger.needs(binding)).collect();
        listed(unclaimed.iter().map(ToString::to_string).chain(self.foreign.clone()).collect())
    }
}

/// What a broker had held and lost. What was never there, because it was just asked for or is refused, is not drift.
#[derive(Debug, Default)]
pub struct Drift {
    /// How often a binding was found missing since the session began.
    pub found: u64,
    /// How often one was put back.
    pub repaired: u64,
    /// Whether the broker was compared before. At first only the records of policies tell what it should hold.
    compared: bool,
    lost: BTreeSet<AppliedBinding>,
}

impl Drift {
    /// Takes up what a comparison has found missing. `before` is what the broker held, as far as was known.
    pub fn find(&mut self, missing: &Bindings, before: &Held) {
        for binding in missing {
            if (!self.compared || before.contains(binding)) && self.lost.insert(binding.clone()) {
                self.found += 1;
            }
        }
        self.compared = true;
    }

    /// Forgets what the broker holds again, or nobody wants any more.
    pub fn settle(&mut self, ledger: &Ledger, held: &Held) {
        let repaired = &mut self.repaired;
        self.lost.retain(|binding| {
            let back = held.contains(binding);
            *repaired += u64::from(back);
            !back && ledger.needs(binding)
        });
    }

    /// What is lost and was not put back.
    #[must_use]
    pub fn lost(&self) -> BindingList {
        listed(self.lost.iter().map(ToString::to_string).collect())
    }
}

fn listed(mut words: Vec<String>) -> BindingList {
    let count = count(words.len());
    words.sort_unstable();
    words.truncate(LISTED);
    BindingList { count, first: words }
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
    fn a_binding_is_needed_until_the_last_claim_on_it_goes() {
        let mut ledger = Ledger::default();
        assert!(ledger.set("one", &claim(&["a", "b"])));
        assert!(!ledger.set("one", &claim(&["a", "b"])), "nothing is new");
        ledger.set("two", &claim(&["a"]));
        assert!(ledger.needs_besides(&binding("a"), "one") && ledger.needs_besides(&binding("a"), "two"));
        assert!(!ledger.needs_besides(&binding("b"), "one") && ledger.needs_besides(&binding("b"), "two"));
        ledger.set("one", &Bindings::new());
        assert!(ledger.needs(&binding("a")) && !ledger.needs(&binding("b")));
        ledger.set("two", &Bindings::new());
        assert!(ledger.counts.is_empty());
    }

    #[test]
    fn only_what_was_held_before_is_drift() {
        let mut ledger = Ledger::default();
        ledger.set("one", &claim(&["a"]));
        let (mut drift, mut held) = (Drift::default(), Held::default());
        drift.find(&held.missing(&ledger), &Held::default());
        assert_eq!((drift.found, drift.lost().count), (1, 1), "recorded as applied, and not there at the first look");
        held.insert(ledger.share(&binding("a")));
        drift.settle(&ledger, &held);
        assert_eq!((drift.repaired, drift.lost().count), (1, 0));
        ledger.set("two", &claim(&["b"]));
        drift.find(&held.missing(&ledger), &held);
        assert_eq!(drift.found, 1, "asked for a moment ago, and not there yet");
        let empty = Held::default();
        drift.find(&empty.missing(&ledger), &held);
        drift.find(&empty.missing(&ledger), &empty);
        assert_eq!(
            (drift.found, drift.lost().first),
            (2, vec![binding("a").to_string()]),
            "found once, not at every look"
        );
        ledger.set("one", &Bindings::new());
        drift.settle(&ledger, &empty);
        assert_eq!((drift.repaired, drift.lost().count), (1, 0), "nobody wants it any more");
    }

    #[test]
    fn what_is_held_is_compared_with_what_is_claimed() {
        let mut ledger = Ledger::default();
        ledger.set("one", &claim(&["a", "b"]));
        let listed = Holdings { bindings: claim(&["b", "c"]), foreign: vec!["a denial".into()] };
        let mut held = Held::new(listed, &ledger);
        assert_eq!(held.missing(&ledger), claim(&["a"]));
        let unmanaged = held.unmanaged(&ledger);
        assert_eq!(unmanaged.count, 2);
        assert_eq!(unmanaged.first, ["User:CN=orders: Write on topic c", "a denial"]);
        held.insert(ledger.share(&binding("a")));
        assert!(held.missing(&ledger).is_empty());
        assert!(Arc::strong_count(&ledger.share(&binding("a"))) > 3, "kept once");
    }
}

//! How many identities of one rotation policy are renewed at the same time.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::domain::in_effect::PolicyInEffect;
use crate::domain::name::Name;

/// The permits of each policy. An identity keeps its permit until it is Ready again.
#[derive(Default)]
pub struct RotationGate(Mutex<HashMap<PolicyInEffect, BTreeMap<String, Name>>>);

impl RotationGate {
    /// Takes a permit for an identity (by UID; `name` is for people). Returns whether it has one.
    pub fn enter(&self, policy: &PolicyInEffect, uid: &str, name: &Name, permits: usize) -> bool {
        let mut policies = self.0.lock();
        let taken = policies.entry(policy.clone()).or_default();
        if taken.len() >= permits && !taken.contains_key(uid) {
            return false;
        }
        taken.insert(uid.to_owned(), name.clone());
        true
    }

    /// Gives back the permit of an identity. Returns whether it had one.
    pub fn leave(&self, uid: &str) -> bool {
        let mut policies = self.0.lock();
        let mut had_permit = false;
        policies.retain(|_, taken| {
            had_permit |= taken.remove(uid).is_some();
            !taken.is_empty()
        });
        had_permit
    }

    /// The identities that have a permit.
    pub fn in_progress(&self, policy: &PolicyInEffect) -> Vec<Name> {
        self.0.lock().get(policy).into_iter().flat_map(|taken| taken.values().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_kept_until_it_is_given_back() {
        let (gate, policy) = (RotationGate::default(), |name| PolicyInEffect(Some(Name::new(Some("shop"), name))));
        let (daily, other) = (policy("daily"), policy("other"));
        let (one, two) = (Name::new(Some("shop"), "one"), Name::new(Some("shop"), "two"));
        assert!(gate.enter(&daily, "1", &one, 1));
        assert!(gate.enter(&daily, "1", &one, 1), "it has a permit already");
        assert!(!gate.enter(&daily, "2", &two, 1));
        assert!(gate.enter(&other, "2", &two, 1), "policies do not share permits");
        assert_eq!(gate.in_progress(&daily), [one]);
        assert!(gate.leave("1"));
        assert!(gate.enter(&daily, "2", &two, 1));
    }
}

//! How many identities of one rotation policy are in the middle of a renewal.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Places per policy. An identity keeps its place until it is Ready again.
#[derive(Default)]
pub struct RotationGate(Mutex<HashMap<String, BTreeMap<String, String>>>);

impl RotationGate {
    /// Takes a place for an identity (by UID; `name` is for people), if one is free or it has one already.
    pub fn enter(&self, policy: &str, uid: &str, name: &str, places: usize) -> bool {
        let mut policies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = policies.entry(policy.to_owned()).or_default();
        if taken.len() >= places && !taken.contains_key(uid) {
            return false;
        }
        taken.insert(uid.to_owned(), name.to_owned());
        true
    }

    /// Gives back the place of an identity. Says whether it had one.
    pub fn leave(&self, uid: &str) -> bool {
        let mut policies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = false;
        policies.retain(|_, taken| {
            left |= taken.remove(uid).is_some();
            !taken.is_empty()
        });
        left
    }

    /// Names of the identities that have a place.
    pub fn in_progress(&self, policy: &str) -> Vec<String> {
        let policies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        policies.get(policy).into_iter().flat_map(|taken| taken.values().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_until_it_is_given_back() {
        let gate = RotationGate::default();
        assert!(gate.enter("p", "1", "one", 1));
        assert!(gate.enter("p", "1", "one", 1), "it has a place already");
        assert!(!gate.enter("p", "2", "two", 1));
        assert!(gate.enter("other", "2", "two", 1), "policies do not share places");
        assert_eq!(gate.in_progress("p"), ["one"]);
        assert!(gate.leave("1"));
        assert!(gate.enter("p", "2", "two", 1));
    }
}

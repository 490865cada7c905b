//! Who holds a name that only one object may hold: the oldest, and among equals the first by namespace and name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// A claimant. Its order is the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claimant {
    /// When the object was created, in seconds since 1970.
    pub created: i64,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Claims on keys of one kind, kept up to date object by object.
#[derive(Debug)]
pub struct Claims<K> {
    by_key: HashMap<K, BTreeSet<Claimant>>,
    by_object: BTreeMap<(String, String), (Claimant, BTreeSet<K>)>,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), by_object: BTreeMap::new() }
    }
}

impl<K: Clone + Ord + Hash> Claims<K> {
    /// Replaces what one object claims, and returns the other objects whose standing this may change.
    pub fn update(
        &mut self,
        namespace: &str,
        name: &str,
        claim: Option<(Claimant, BTreeSet<K>)>,
    ) -> BTreeSet<Claimant> {
        let object = (namespace.to_owned(), name.to_owned());
        let claim = claim.filter(|(_, keys)| !keys.is_empty());
        let before = self.by_object.get(&object);
        if before == claim.as_ref() {
            return BTreeSet::new();
        }
        let mut affected = BTreeSet::new();
        if let Some((claimant, keys)) = self.by_object.remove(&object) {
            for key in keys {
                if let Some(holders) = self.by_key.get_mut(&key) {
                    holders.remove(&claimant);
                    affected.extend(holders.iter().cloned());
                    if holders.is_empty() {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
        if let Some((claimant, keys)) = claim {
            for key in &keys {
                let holders = self.by_key.entry(key.clone()).or_default();
                affected.extend(holders.iter().cloned());
                holders.insert(claimant.clone());
            }
            self.by_object.insert(object, (claimant, keys));
        }
        affected.retain(|other| (other.namespace.as_str(), other.name.as_str()) != (namespace, name));
        affected
    }

    /// The object that holds a key.
    #[must_use]
    pub fn holder(&self, key: &K) -> Option<&Claimant> {
        self.by_key.get(key)?.first()
    }

    /// All objects that claim a key, the holder first.
    pub fn holders(&self, key: &K) -> impl Iterator<Item = &Claimant> {
        self.by_key.get(key).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(created: i64, name: &str) -> Claimant {
        Claimant { created, namespace: "shop".into(), name: name.into() }
    }

    #[test]
    fn the_older_object_holds_a_claim_and_the_younger_takes_over_when_it_goes() {
        let mut claims = Claims::default();
        let keys = BTreeSet::from(["orders"]);
        claims.update("shop", "young", Some((claimant(2, "young"), keys.clone())));
        let affected = claims.update("shop", "old", Some((claimant(1, "old"), keys)));
        assert_eq!(affected, BTreeSet::from([claimant(2, "young")]), "the younger one must look again");
        assert_eq!(claims.holder(&"orders").unwrap().name, "old");
        assert_eq!(claims.update("shop", "old", None), BTreeSet::from([claimant(2, "young")]));
        assert_eq!(claims.holder(&"orders").unwrap().name, "young");
    }

    #[test]
    fn an_unchanged_claim_disturbs_nobody() {
        let mut claims = Claims::default();
        let claim = || Some((claimant(1, "a"), BTreeSet::from(["x"])));
        claims.update("shop", "b", Some((claimant(2, "b"), BTreeSet::from(["x"]))));
        assert!(!claims.update("shop", "a", claim()).is_empty());
        assert!(claims.update("shop", "a", claim()).is_empty());
    }
}

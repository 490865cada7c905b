//! Claims on names that only one object may hold. The oldest object holds a name; among objects of the same age, the first by
//! kind, namespace and name does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::name::{Name, ObjectRef};
use crate::api::KindName;

/// The claim of one object.
#[derive(Debug)]
pub struct Claim {
    /// When the object was created, in seconds since 1970.
    pub created: i64,
    /// The names that it claims.
    pub keys: BTreeSet<String>,
}

#[derive(Debug)]
struct Claimed {
    created: i64,
    keys: Box<[Arc<str>]>,
}

impl Claimed {
    fn equals(&self, claim: &Claim) -> bool {
        self.created == claim.created && self.keys.iter().map(AsRef::as_ref).eq(claim.keys.iter().map(String::as_str))
    }
}

/// The claims of all objects on names of one kind.
#[derive(Debug, Default)]
pub struct Claims {
    /// Name, creation time and object: the first object of a name holds it.
    by_key: BTreeSet<(Arc<str>, i64, ObjectRef)>,
    by_object: BTreeMap<ObjectRef, Claimed>,
}

impl Claims {
    /// Replaces the claim of one object, and returns the other objects whose names it claimed before or claims now.
    pub fn update(&mut self, object: &ObjectRef, claim: Option<Claim>) -> BTreeSet<ObjectRef> {
        let claim = claim.filter(|claim| !claim.keys.is_empty());
        let is_same = match (self.by_object.get(object), &claim) {
            (Some(before), Some(claim)) => before.equals(claim),
            (before, claim) => before.is_none() && claim.is_none(),
        };
        let mut affected = BTreeSet::new();
        if is_same {
            return affected;
        }
        if let Some(Claimed { created, keys }) = self.by_object.remove(object) {
            for key in keys {
                affected.extend(self.holders(&key).cloned());
                self.by_key.remove(&(key, created, object.clone()));
            }
        }
        if let Some(Claim { created, keys }) = claim {
            let keys: Box<[Arc<str>]> = keys.iter().map(|key| self.share(key)).collect();
            for key in &keys {
                affected.extend(self.holders(key).cloned());
                self.by_key.insert((key.clone(), created, object.clone()));
            }
            self.by_object.insert(object.clone(), Claimed { created, keys });
        }
        affected.remove(object);
        affected
    }

    /// The object that holds a name.
    #[must_use]
    pub fn holder(&self, key: &str) -> Option<&ObjectRef> {
        self.holders(key).next()
    }

    /// All objects that claim a name, the holder first.
    pub fn holders(&self, key: &str) -> impl Iterator<Item = &ObjectRef> {
        self.entries(key).map(|(_, _, object)| object)
    }

    fn entries(&self, key: &str) -> impl Iterator<Item = &(Arc<str>, i64, ObjectRef)> {
        let first = ObjectRef { kind: KindName::ALL[0], name: Name::new(None, "") };
        let begin = (Arc::from(key), i64::MIN, first);
        self.by_key.range(begin..).take_while(move |(found, _, _)| **found == *key)
    }

    /// The shared copy of a name.
    fn share(&self, key: &str) -> Arc<str> {
        self.entries(key).next().map_or_else(|| key.into(), |(key, _, _)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectRef {
        ObjectRef { kind: KindName::ServiceIdentity, name: Name::new(Some("shop"), name) }
    }

    fn claim(created: i64, keys: &[&str]) -> Claim {
        Claim { created, keys: keys.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn the_oldest_claim_holds_until_it_is_gone() {
        let mut claims = Claims::default();
        claims.update(&name("young"), Some(claim(2, &["orders"])));
        let affected = claims.update(&name("old"), Some(claim(1, &["orders"])));
        assert_eq!(affected, BTreeSet::from([name("young")]), "the younger object must be reconciled");
        assert_eq!(claims.holder("orders"), Some(&name("old")));
        assert_eq!(claims.update(&name("old"), None), BTreeSet::from([name("young")]));
        assert_eq!(claims.holder("orders"), Some(&name("young")));
        claims.update(&name("young"), None);
        assert!(claims.by_key.is_empty() && claims.by_object.is_empty(), "nothing is left of deleted objects");
    }

    #[test]
    fn an_unchanged_claim_affects_no_object() {
        let mut claims = Claims::default();
        claims.update(&name("b"), Some(claim(2, &["x"])));
        assert!(!claims.update(&name("a"), Some(claim(1, &["x"]))).is_empty());
        assert!(claims.update(&name("a"), Some(claim(1, &["x"]))).is_empty());
    }

    #[test]
    fn a_name_that_is_the_beginning_of_another_is_distinct() {
        let mut claims = Claims::default();
        claims.update(&name("a"), Some(claim(1, &["or", "orders.dead"])));
        claims.update(&name("b"), Some(claim(2, &["orders"])));
        assert_eq!(claims.holder("orders"), Some(&name("b")));
        assert_eq!(claims.holder("order"), None);
        let affected = claims.update(&name("b"), Some(claim(2, &["orders", "orders.dead"])));
        assert_eq!(affected, BTreeSet::from([name("a")]));
    }
}

//! An index from a key, such as the name of a broker, to the objects that refer to it.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::name::Name;

/// The objects of one kind, by the keys that they refer to.
#[derive(Debug)]
pub struct Index<K>(BTreeSet<(K, Name)>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Clone> Index<K> {
    /// Replaces the keys of an object.
    pub fn update(&mut self, object: &Name, before: Vec<K>, after: Vec<K>) {
        for key in before {
            if !after.contains(&key) {
                self.0.remove(&(key, object.clone()));
            }
        }
        for key in after {
            // Equal keys share their text: ten thousand identities may refer to one trust domain.
            let known = self.entries(&key).next().map(|(known, _)| known.clone());
            self.0.insert((known.unwrap_or(key), object.clone()));
        }
    }

    /// The objects that refer to a key.
    #[must_use]
    pub fn users(&self, key: &K) -> Vec<Name> {
        self.entries(key).map(|(_, object)| object.clone()).collect()
    }

    /// Whether an object refers to a key.
    #[must_use]
    pub fn has(&self, key: &K) -> bool {
        self.entries(key).next().is_some()
    }

    fn entries(&self, key: &K) -> impl Iterator<Item = &(K, Name)> + use<'_, K> {
        let begin = Bound::Included((key.clone(), Name::new(None, "")));
        let is_same = key.clone();
        self.0.range((begin, Bound::Unbounded)).take_while(move |(found, _)| *found == is_same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_by_its_current_keys() {
        let (mut index, one, two) = (Index::default(), Name::new(Some("a"), "one"), Name::new(None, "two"));
        index.update(&one, vec![], vec!["kafka", "demo"]);
        index.update(&two, vec![], vec!["kafka"]);
        assert_eq!(index.users(&"kafka"), [two.clone(), one.clone()]);
        index.update(&one, vec!["kafka", "demo"], vec!["nats", "demo"]);
        assert_eq!(index.users(&"kafka"), std::slice::from_ref(&two));
        assert_eq!((index.users(&"nats"), index.has(&"demo")), (vec![one.clone()], true));
        index.update(&one, vec!["nats", "demo"], vec![]);
        index.update(&two, vec!["kafka"], vec![]);
        assert!(index.0.is_empty(), "nothing is left of deleted objects");
    }

    #[test]
    fn a_key_that_is_the_beginning_of_another_is_distinct() {
        let mut index = Index::default();
        index.update(&Name::new(None, "one"), vec![], vec!["kafka-prod"]);
        assert!(index.users(&"kafka").is_empty());
    }
}

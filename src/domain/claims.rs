//! Names that only one object may hold. An object takes names once it was accepted, and keeps them until it lets them go: an
//! object that is refused holds nothing, and no other object, however old, takes a name from a holder.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::name::ObjectRef;

#[derive(Debug, Default)]
struct Claimants {
    holder: Option<ObjectRef>,
    all: BTreeSet<ObjectRef>,
}

/// The claims of all objects on names of one kind.
#[derive(Debug, Default)]
pub struct Claims {
    by_name: BTreeMap<Arc<str>, Claimants>,
    by_object: BTreeMap<ObjectRef, BTreeSet<Arc<str>>>,
}

/// What came of an attempt to take names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The names that another object holds, and this object. With one of them, nothing new was taken.
    pub conflicts: Vec<(String, ObjectRef)>,
    /// The other objects that claim a name which was let go.
    pub released: BTreeSet<ObjectRef>,
}

impl Claims {
    /// Replaces what an object claims, and returns the others that claim a name which it let go. Of the names that are new,
    /// it holds at once those that `held` names and nobody holds: they were its own before this process began.
    pub fn update(
        &mut self,
        object: &ObjectRef,
        names: &BTreeSet<String>,
        held: impl Fn(&str) -> bool,
    ) -> BTreeSet<ObjectRef> {
        let before = self.by_object.remove(object).unwrap_or_default();
        let mut released = BTreeSet::new();
        for name in before.iter().filter(|name| !names.contains(&***name)) {
            released.extend(self.let_go(object, name));
            let Some(claimants) = self.by_name.get_mut(name) else { continue };
            claimants.all.remove(object);
            if claimants.all.is_empty() {
                self.by_name.remove(name);
            }
        }
        let mut claimed = BTreeSet::new();
        for name in names {
            let shared =
                self.by_name.get_key_value(name.as_str()).map_or_else(|| name.as_str().into(), |it| it.0.clone());
            let claimants = self.by_name.entry(Arc::clone(&shared)).or_default();
            if claimants.all.insert(object.clone()) && claimants.holder.is_none() && held(name) {
                claimants.holder = Some(object.clone());
            }
            claimed.insert(shared);
        }
        if !claimed.is_empty() {
            self.by_object.insert(object.clone(), claimed);
        }
        released
    }

    /// Takes all claimed names that an object is allowed to hold, if they are free, and lets go of the others. An object that is
    /// refused for another reason keeps what it holds, and takes nothing.
    pub fn take(&mut self, object: &ObjectRef, is_allowed: impl Fn(&str) -> bool, is_refused: bool) -> Taken {
        let names: Vec<Arc<str>> = self.by_object.get(object).into_iter().flatten().cloned().collect();
        let (allowed, refused): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_allowed(name));
        let mut taken = Taken::default();
        for name in &refused {
            taken.released.extend(self.let_go(object, name));
        }
        for name in &allowed {
            let holder = self.holder(name).filter(|holder| *holder != object);
            taken.conflicts.extend(holder.map(|holder| (name.to_string(), holder.clone())));
        }
        // An object is accepted as a whole.
        if taken.conflicts.is_empty() && refused.is_empty() && !is_refused {
            for name in &allowed {
                if let Some(claimants) = self.by_name.get_mut(name) {
                    claimants.holder = Some(object.clone());
                }
            }
        }
        taken
    }

    /// The object that holds a name.
    #[must_use]
    pub fn holder(&self, name: &str) -> Option<&ObjectRef> {
        self.by_name.get(name)?.holder.as_ref()
    }

    /// How many names that begin in this way are held by other objects than this one; and whether it holds one itself.
    #[must_use]
    pub fn held_below(&self, prefix: &str, object: &ObjectRef) -> (usize, bool) {
        let below = self.by_name.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let below = below.take_while(|(name, _)| name.starts_with(prefix));
        below
            .filter_map(|(_, claimants)| claimants.holder.as_ref())
            .fold((0, false), |(others, own), holder| if holder == object { (others, true) } else { (others + 1, own) })
    }

    /// Lets go of a name, and returns the others that claim it.
    fn let_go(&mut self, object: &ObjectRef, name: &str) -> BTreeSet<ObjectRef> {
        let Some(claimants) = self.by_name.get_mut(name) else { return BTreeSet::new() };
        if claimants.holder.as_ref() != Some(object) {
            return BTreeSet::new();
        }
        claimants.holder = None;
        claimants.all.iter().filter(|other| *other != object).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::KindName;
    use crate::domain::name::Name;

    fn object(name: &str) -> ObjectRef {
        ObjectRef { kind: KindName::ServiceIdentity, name: Name::new(Some("shop"), name) }
    }

    fn claim(claims: &mut Claims, name: &str, names: &[&str]) -> BTreeSet<ObjectRef> {
        let names = names.iter().map(ToString::to_string).collect();
        claims.update(&object(name), &names, |_| false)
    }

    fn take(claims: &mut Claims, name: &str) -> Vec<(String, ObjectRef)> {
        claims.take(&object(name), |_| true, false).conflicts
    }

    #[test]
    fn a_holder_keeps_its_name_until_it_lets_it_go() {
        let mut claims = Claims::default();
        claim(&mut claims, "first", &["a"]);
        claim(&mut claims, "second", &["a"]);
        assert_eq!(claims.holder("a"), None, "nobody was accepted yet");
        assert_eq!(take(&mut claims, "first"), []);
        assert_eq!(take(&mut claims, "second"), [("a".to_owned(), object("first"))]);
        assert_eq!(claim(&mut claims, "first", &[]), BTreeSet::from([object("second")]));
        assert_eq!(take(&mut claims, "second"), []);
        claim(&mut claims, "second", &[]);
        assert!(claims.by_name.is_empty() && claims.by_object.is_empty(), "nothing is left of deleted objects");
    }

    #[test]
    fn an_object_that_is_refused_takes_nothing() {
        let mut claims = Claims::default();
        claim(&mut claims, "refused", &["a", "not-mine"]);
        assert_eq!(claims.take(&object("refused"), |name| name != "not-mine", false), Taken::default());
        assert_eq!(claims.holder("a"), None);
        claim(&mut claims, "refused", &["a"]);
        assert_eq!(claims.take(&object("refused"), |_| true, true), Taken::default());
        assert_eq!(claims.holder("a"), None, "refused for another reason");
        claim(&mut claims, "other", &["a"]);
        assert_eq!(take(&mut claims, "other"), []);
        claim(&mut claims, "third", &["a", "b"]);
        assert_eq!(take(&mut claims, "third").len(), 1);
        assert_eq!(claims.holder("b"), None, "with a conflict, nothing is taken");
    }

    #[test]
    fn a_name_that_is_not_allowed_any_more_is_let_go_and_the_others_are_kept() {
        let mut claims = Claims::default();
        claim(&mut claims, "one", &["a", "b"]);
        take(&mut claims, "one");
        claim(&mut claims, "two", &["b"]);
        assert_eq!(claims.take(&object("one"), |_| true, true), Taken::default());
        assert_eq!(claims.holder("b"), Some(&object("one")), "refused for another reason, it keeps what it holds");
        let taken = claims.take(&object("one"), |name| name != "b", false);
        assert_eq!(taken.released, BTreeSet::from([object("two")]));
        assert_eq!((claims.holder("a"), claims.holder("b")), (Some(&object("one")), None));
    }

    #[test]
    fn what_was_held_before_this_process_began_is_held_at_once() {
        let mut claims = Claims::default();
        claims.update(&object("victim"), &["a".to_owned()].into(), |_| true);
        claims.update(&object("older"), &["a".to_owned()].into(), |_| true);
        assert_eq!(take(&mut claims, "older"), [("a".to_owned(), object("victim"))]);
    }
    #[test]
    fn names_that_are_held_are_counted_by_their_beginning() {
        let mut claims = Claims::default();
        for (name, path) in [("one", "/shop/a"), ("two", "/shop/b"), ("three", "/shop/c"), ("other", "/shopping/a")] {
            claim(&mut claims, name, &[path]);
        }
        for name in ["one", "two", "other"] {
            take(&mut claims, name);
        }
        assert_eq!(claims.held_below("/shop/", &object("one")), (1, true));
        assert_eq!(claims.held_below("/shop/", &object("three")), (2, false));
        assert_eq!(claims.held_below("/evil/", &object("one")), (0, false));
    }
}

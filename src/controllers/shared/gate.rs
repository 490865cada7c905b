//! How many identities of one rotation policy are renewed at the same time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::in_effect::PolicyInEffect;
use crate::domain::name::Name;

/// How long an identity may take to be Ready again before its renewal counts as failed.
const FAILED_AFTER: Duration = Duration::from_secs(300);
/// In how many namespaces renewals have to fail until a policy stops renewing in all namespaces.
const FAILED_NAMESPACES: usize = 3;

struct Place {
    identity: Name,
    since: Instant,
}

/// The places of each policy. An identity keeps its place until it is Ready again, so a rotation that fails stops by itself:
/// in a namespace where it fails, and everywhere once it fails in several. What a single tenant breaks holds up nobody else.
#[derive(Default)]
pub struct RotationGate(Mutex<HashMap<PolicyInEffect, BTreeMap<String, Place>>>);

impl RotationGate {
    /// Takes a place for an identity (by UID). Returns whether it has one.
    pub fn enter(&self, policy: &PolicyInEffect, uid: &str, identity: &Name, permits: usize, now: Instant) -> bool {
        let mut policies = self.0.lock();
        let places = policies.entry(policy.clone()).or_default();
        if places.contains_key(uid) {
            return true;
        }
        let has_failed = |place: &&Place| now.duration_since(place.since) >= FAILED_AFTER;
        let failed: BTreeSet<&Arc<str>> =
            places.values().filter(has_failed).map(|place| &place.identity.namespace).collect();
        let busy = places.values().filter(|place| !has_failed(place));
        let own = busy.clone().filter(|place| place.identity.namespace == identity.namespace).count();
        // Of a policy for several namespaces, one takes at most half: it could be slow on purpose, again and again.
        let is_shared = policy.0.as_ref().is_none_or(|name| name.namespace != identity.namespace);
        let share = if is_shared { (permits / 2).max(1) } else { permits };
        if failed.len() >= FAILED_NAMESPACES
            || failed.contains(&identity.namespace)
            || own >= share
            || busy.count() >= permits
        {
            return false;
        }
        places.insert(uid.to_owned(), Place { identity: identity.clone(), since: now });
        true
    }

    /// Gives back the place of an identity. Returns whether it had one.
    pub fn leave(&self, uid: &str) -> bool {
        let mut policies = self.0.lock();
        let mut had_place = false;
        policies.retain(|_, places| {
            had_place |= places.remove(uid).is_some();
            !places.is_empty()
        });
        had_place
    }

    /// The identities that have a place.
    pub fn in_progress(&self, policy: &PolicyInEffect) -> Vec<Name> {
        self.0.lock().get(policy).into_iter().flatten().map(|(_, place)| place.identity.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str) -> PolicyInEffect {
        PolicyInEffect(Some(Name::new(Some("shop"), name)))
    }

    #[test]
    fn a_place_is_kept_until_it_is_given_back() {
        let (gate, now) = (RotationGate::default(), Instant::now());
        let (daily, other) = (policy("daily"), policy("other"));
        let (one, two) = (Name::new(Some("shop"), "one"), Name::new(Some("shop"), "two"));
        assert!(gate.enter(&daily, "1", &one, 1, now));
        assert!(gate.enter(&daily, "1", &one, 1, now), "it has a place already");
        assert!(!gate.enter(&daily, "2", &two, 1, now));
        assert!(gate.enter(&other, "2", &two, 1, now), "policies do not share places");
        assert_eq!(gate.in_progress(&daily), [one]);
        assert!(gate.leave("1"));
        assert!(gate.enter(&daily, "2", &two, 1, now));
    }

    #[test]
    fn one_namespace_takes_at_most_half_of_the_places_of_a_shared_policy() {
        let (gate, now) = (RotationGate::default(), Instant::now());
        let everywhere = PolicyInEffect(Some(Name::new(Some("credence-system"), "all")));
        let enter = |policy: &PolicyInEffect, uid: &str, namespace: &str| {
            gate.enter(policy, uid, &Name::new(Some(namespace), uid), 4, now)
        };
        assert!(enter(&everywhere, "1", "evil") && enter(&everywhere, "2", "evil") && !enter(&everywhere, "3", "evil"));
        assert!(enter(&everywhere, "4", "shop") && enter(&everywhere, "5", "shop") && !enter(&everywhere, "6", "bank"));
        let own = policy("own");
        assert!((10..14).all(|uid| enter(&own, &uid.to_string(), "shop")), "all places of a policy of its own");
        assert!(!enter(&own, "14", "shop"));
    }

    #[test]
    fn what_fails_in_one_namespace_holds_up_no_other_and_what_fails_everywhere_stops() {
        let (gate, policy, start) = (RotationGate::default(), policy("all"), Instant::now());
        let enter =
            |uid: &str, namespace: &str, now| gate.enter(&policy, uid, &Name::new(Some(namespace), uid), 2, now);
        assert!(enter("1", "evil", start));
        let later = start + FAILED_AFTER;
        assert!(!enter("4", "evil", later), "in its own namespace the rotation has stopped");
        assert!(enter("3", "shop", later));
        assert!(enter("5", "billing", later));
        let end = later + FAILED_AFTER;
        assert!(!enter("6", "fourth", end), "it fails in three namespaces");
        assert!(gate.leave("3") && gate.leave("5"));
        assert!(enter("6", "fourth", end));
    }
}

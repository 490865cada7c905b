//! The keys that an issuer signs tokens with, and when they are rotated. Pure: keys are generated elsewhere.
//!
//! A key is prepared (published, signs nothing), then active (signs), then retiring (published until the last token that it signed
//! has expired), and then dropped. The next key is always prepared, from the beginning.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::key_set::KeyRotation;

/// For how long a key that signs no more is published: the longest that a token lasts, and a minute for clocks that differ.
const KEEP: SignedDuration = SignedDuration::from_mins(16);
/// How many keys retire at the same time at most: the next rotation waits.
const MAX_RETIRING: usize = 6;

/// A key without its material, as an annotation of its Secret records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenKey {
    /// Its ID.
    pub id: String,
    /// Since when it is published.
    pub published_since: Timestamp,
    /// Since when it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_since: Option<Timestamp>,
    /// Since when it signs no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_since: Option<Timestamp>,
}

impl TokenKey {
    /// A key that is published from now on.
    #[must_use]
    pub fn new(id: String, now: Timestamp) -> Self {
        Self { id, published_since: now, signs_since: None, retires_since: None }
    }

    fn is_active(&self) -> bool {
        self.signs_since.is_some() && self.retires_since.is_none()
    }

    fn is_prepared(&self) -> bool {
        self.signs_since.is_none()
    }

    /// Where it stands among others: the active key first, then the prepared one, then those that retire, the last one first.
    #[must_use]
    pub fn order(&self) -> (bool, bool, Reverse<Option<Timestamp>>) {
        (!self.is_active(), !self.is_prepared(), Reverse(self.retires_since))
    }

    /// When it is dropped.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        self.retires_since.and_then(|since| since.checked_add(KEEP).ok())
    }
}

/// When keys are rotated.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// How long a key signs, and what is asked for before that.
    pub rotation: &'a KeyRotation,
    /// For how long a key is published before it signs.
    pub publish_for: SignedDuration,
    /// The IDs of keys that others may have: they sign nothing, and are published no more.
    pub tainted: &'a [String],
}

/// What the rotation of a key waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The next key has to be published for longer: until then.
    Publication(Timestamp),
    /// A replica of the token issuer does not serve the key set yet, or there is none.
    Replicas,
    /// Former keys are still published: until then.
    Retirement(Timestamp),
}

/// The decision about the keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The present keys that stay: the active one first, then the prepared one, then those that retire.
    pub keys: Vec<TokenKey>,
    /// How many keys to make. They are prepared; without an active key the first of them signs at once.
    pub make: usize,
    /// What a rotation that is due waits for.
    pub waits: Option<Wait>,
    /// When to decide again.
    pub until: Option<Timestamp>,
}

/// Decides about keys. `is_served` says whether every replica serves the present ones.
#[must_use]
pub fn decide(rules: &Rules<'_>, keys: &[TokenKey], is_served: bool, now: Timestamp) -> Decision {
    let is_over = |key: &TokenKey| key.ends().is_some_and(|end| end <= now);
    let stays = |key: &&TokenKey| !rules.tainted.contains(&key.id) && !is_over(key);
    let mut keys: Vec<TokenKey> = keys.iter().filter(stays).cloned().collect();
    let (active, prepared) = (keys.iter().position(TokenKey::is_active), keys.iter().position(TokenKey::is_prepared));
    let (mut waits, mut due) = (None, None);
    match (active, prepared) {
        // The former one is tainted or lost. This one has been published all the time.
        (None, Some(next)) => keys[next].signs_since = Some(now),
        (Some(active), Some(next)) => {
            let at = due_at(rules.rotation, &keys[active], now);
            if at.is_some_and(|at| at <= now) {
                waits = wait(rules, &keys, next, is_served, now);
                if waits.is_none() {
                    keys[active].retires_since = Some(now);
                    keys[next].signs_since = Some(now);
                }
            } else {
                due = at;
            }
        }
        (_, None) => {}
    }
    let has = |is: fn(&TokenKey) -> bool| usize::from(keys.iter().any(is));
    let make = 2 - has(TokenKey::is_active) - has(TokenKey::is_prepared);
    keys.sort_by_key(TokenKey::order);
    let waited = waits.and_then(|wait| match wait {
        Wait::Publication(until) | Wait::Retirement(until) => Some(until),
        Wait::Replicas => None,
    });
    let until = keys.iter().filter_map(TokenKey::ends).chain(due).chain(waited).min();
    Decision { keys, make, waits, until }
}

/// When an active key is to be replaced; `None` if it is not.
fn due_at(rotation: &KeyRotation, active: &TokenKey, now: Timestamp) -> Option<Timestamp> {
    let made = active.published_since;
    let requested = rotation.issued_before.iter().copied().filter(|before| made < *before);
    let since = active.signs_since.unwrap_or(now);
    let scheduled = (!rotation.suspend).then(|| since.checked_add(rotation.every).unwrap_or(Timestamp::MAX));
    requested.chain(scheduled).min()
}

fn wait(rules: &Rules<'_>, keys: &[TokenKey], next: usize, is_served: bool, now: Timestamp) -> Option<Wait> {
    let published = keys[next].published_since.checked_add(rules.publish_for).unwrap_or(Timestamp::MAX);
    if published > now {
        return Some(Wait::Publication(published));
    }
    let retiring: Vec<Timestamp> = keys.iter().filter_map(TokenKey::ends).collect();
    match retiring.iter().min() {
        Some(first) if retiring.len() >= MAX_RETIRING => Some(Wait::Retirement(*first)),
        _ => (!is_served).then_some(Wait::Replicas),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn hourly() -> KeyRotation {
        KeyRotation { every: SignedDuration::from_hours(1), ..KeyRotation::default() }
    }

    fn rules<'a>(rotation: &'a KeyRotation, tainted: &'a [String]) -> Rules<'a> {
        Rules { rotation, publish_for: SignedDuration::from_mins(10), tainted }
    }

    /// The keys that follow from a decision, with those that are made.
    fn carried_out(decision: &Decision, names: &[&str], now: Timestamp) -> Vec<TokenKey> {
        assert_eq!(decision.make, names.len());
        let mut keys = decision.keys.clone();
        keys.extend(names.iter().map(|name| TokenKey::new((*name).to_owned(), now)));
        keys
    }

    fn phases(keys: &[TokenKey]) -> Vec<(&str, &str)> {
        let phase = |key: &TokenKey| match key {
            key if key.is_active() => "active",
            key if key.is_prepared() => "prepared",
            _ => "retiring",
        };
        keys.iter().map(|key| (key.id.as_str(), phase(key))).collect()
    }

    /// An issuer with an active key and the next one, since minute 0.
    fn fresh() -> Vec<TokenKey> {
        let rotation = hourly();
        let mut keys = carried_out(&decide(&rules(&rotation, &[]), &[], true, at(0)), &["a", "b"], at(0));
        keys[0].signs_since = Some(at(0));
        keys
    }

    #[test]
    fn a_rotation_has_three_keys_for_a_while() {
        let rotation = hourly();
        let before = decide(&rules(&rotation, &[]), &fresh(), true, at(59));
        assert_eq!((before.make, before.until), (0, Some(at(60))));
        let turned = decide(&rules(&rotation, &[]), &fresh(), true, at(60));
        let keys = carried_out(&turned, &["c"], at(60));
        assert_eq!(phases(&keys), [("b", "active"), ("a", "retiring"), ("c", "prepared")]);
        let later = decide(&rules(&rotation, &[]), &keys, true, at(61));
        assert_eq!(phases(&later.keys), [("b", "active"), ("c", "prepared"), ("a", "retiring")]);
        assert_eq!(later.until, Some(at(76)));
        let dropped = decide(&rules(&rotation, &[]), &keys, true, at(76));
        assert_eq!(phases(&dropped.keys), [("b", "active"), ("c", "prepared")]);
    }

    #[test]
    fn nothing_is_signed_with_a_key_that_a_replica_does_not_serve_or_that_was_published_just_now() {
        let rotation = hourly();
        let decided =
            |keys: &[TokenKey], is_served, minute| decide(&rules(&rotation, &[]), keys, is_served, at(minute));
        let waiting = decided(&fresh(), false, 60);
        assert_eq!((waiting.waits, phases(&waiting.keys)[0]), (Some(Wait::Replicas), ("a", "active")));
        let mut keys = fresh();
        keys[1].published_since = at(55);
        let waiting = decided(&keys, true, 60);
        assert_eq!((waiting.waits, waiting.until), (Some(Wait::Publication(at(65))), Some(at(65))));
        assert_eq!(phases(&decided(&keys, true, 65).keys)[0], ("b", "active"));
    }

    #[test]
    fn a_request_does_not_wait_for_the_schedule_and_suspension_holds_up_the_schedule_only() {
        let asked = KeyRotation { issued_before: vec![at(20)], suspend: true, ..hourly() };
        let before = decide(&rules(&asked, &[]), &fresh(), true, at(19));
        assert_eq!((before.keys[0].id.as_str(), before.until), ("a", Some(at(20))));
        assert_eq!(decide(&rules(&asked, &[]), &fresh(), true, at(20)).keys[0].id, "b");
        let suspended = KeyRotation { suspend: true, ..hourly() };
        assert_eq!(decide(&rules(&suspended, &[]), &fresh(), true, at(600)).keys[0].id, "a");
    }

    #[test]
    fn a_tainted_key_is_replaced_at_once_and_published_no_more() {
        let (rotation, tainted) = (hourly(), ["a".to_owned()]);
        let turned = decide(&rules(&rotation, &tainted), &fresh(), false, at(1));
        assert_eq!(phases(&carried_out(&turned, &["c"], at(1))), [("b", "active"), ("c", "prepared")]);
        let both = ["a".to_owned(), "b".to_owned()];
        assert_eq!(decide(&rules(&rotation, &both), &fresh(), true, at(1)).make, 2);
        let next = decide(&rules(&rotation, &both[1..]), &fresh(), true, at(1));
        assert_eq!(phases(&carried_out(&next, &["c"], at(1))), [("a", "active"), ("c", "prepared")]);
    }

    #[test]
    fn keys_do_not_add_up_however_often_a_rotation_is_asked_for() {
        let now = at(1_000);
        let often = KeyRotation { every: SignedDuration::ZERO, ..hourly() };
        let rules = Rules { publish_for: SignedDuration::ZERO, ..rules(&often, &[]) };
        let (mut keys, mut waits) = (fresh(), None);
        for number in 0..20 {
            let decision = decide(&rules, &keys, true, now);
            waits = decision.waits;
            let made = [number.to_string()];
            let names: Vec<&str> = made.iter().map(String::as_str).take(decision.make).collect();
            keys = carried_out(&decision, &names, now);
        }
        assert_eq!((keys.len(), waits), (2 + MAX_RETIRING, Some(Wait::Retirement(now + KEEP))));
    }
}

//! Which generated keys a webhook has, and when they are rotated. Pure: keys are generated elsewhere.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::invalid_field::InvalidField;
use super::schedule::duration;
use crate::api::{RotationPolicySpec, WebhookKeyAlgorithm, WebhookKeyState, WebhookKeyStatus, whole_seconds};

/// A key without its secret part, as an annotation of its Secret records it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// Its ID.
    pub id: String,
    /// The first 16 hexadecimal digits of its SHA-256.
    pub fingerprint: String,
    /// The public key of an asymmetric key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// From when signatures with it are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when signatures with it are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Since when senders are asked to sign with it; before that, signatures with it are only accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs_since: Option<Timestamp>,
}

impl KeyRecord {
    /// Whether the key is valid at a time; at the moment of its end it already is not.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        is_within(self.not_before, self.not_after, now)
    }

    /// The algorithm of the key.
    #[must_use]
    pub fn algorithm(&self) -> WebhookKeyAlgorithm {
        if self.public_key.is_some() { WebhookKeyAlgorithm::Ed25519 } else { WebhookKeyAlgorithm::HmacSha256 }
    }
}

/// When keys are rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// How long senders sign with one key.
    pub every: SignedDuration,
    /// How long the former key is accepted after that.
    pub overlap: SignedDuration,
    /// Keys that were generated before one of these times are rotated, once that time has come.
    pub issued_before: Vec<Timestamp>,
    /// Whether rotation is suspended, except what another policy requests.
    pub suspend: bool,
}

impl Default for KeyRotation {
    fn default() -> Self {
        Self {
            every: SignedDuration::from_hours(720),
            overlap: SignedDuration::from_hours(24),
            issued_before: Vec::new(),
            suspend: false,
        }
    }
}

impl KeyRotation {
    /// From a rotation policy.
    ///
    /// # Errors
    /// The field that is invalid.
    pub fn new(spec: &RotationPolicySpec) -> Result<Self, InvalidField> {
        let defaults = Self::default();
        let credentials = spec.credentials.clone().unwrap_or_default();
        Ok(Self {
            every: duration("credentials.every", credentials.every.as_deref(), defaults.every)?,
            overlap: duration("credentials.overlap", credentials.overlap.as_deref(), defaults.overlap)?,
            issued_before: spec.issued_before.iter().map(|time| time.0).collect(),
            suspend: spec.suspend.unwrap_or(false),
        })
    }
}

/// Whether a time is one at which a key is valid that begins and ends at these times. At its end it is not valid any more.
#[must_use]
pub fn is_within(begin: Option<Timestamp>, end: Option<Timestamp>, now: Timestamp) -> bool {
    begin.is_none_or(|begin| begin <= now) && end.is_none_or(|end| now < end)
}

/// The decision about the keys of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The present keys that are still valid, with their new times.
    pub keys: Vec<KeyRecord>,
    /// The algorithm of a key to generate; `None` if no key is needed. If no other key signs, the new key signs immediately.
    pub make: Option<WebhookKeyAlgorithm>,
    /// When to decide again.
    pub until: Timestamp,
}

/// How many keys a webhook has at most. So many are only there when keys are rotated much more often than their overlap ends: the next
/// one waits until a former key has ended. One that was asked for does not wait: the former key that would end first ends at once.
const MAX_KEYS: usize = 8;

/// Decides about generated keys. A new key is accepted first. When every edge replica accepts it (`programmed`), senders are
/// asked to sign with it, and the former key gets an end. Where the edge signs, it signs with all keys during that overlap, so
/// that receivers have time to install the new one.
#[must_use]
pub fn decide(
    rotation: &KeyRotation,
    algorithm: WebhookKeyAlgorithm,
    keys: &[KeyRecord],
    programmed: bool,
    now: Timestamp,
) -> Decision {
    let lives = |key: &&KeyRecord| key.not_after.is_none_or(|end| now < end);
    let mut keys: Vec<KeyRecord> = keys.iter().filter(lives).cloned().collect();
    let signs = |key: &KeyRecord| key.not_after.is_none() && key.signs_since.is_some();
    let waits = |key: &KeyRecord| key.not_after.is_none() && key.signs_since.is_none();
    let signing = keys.iter().position(signs);
    let next = keys.iter().position(waits);
    let mut make = false;
    let mut rotate_at = None;
    match (signing, next) {
        (None, None) => make = true,
        (None, Some(next)) => keys[next].signs_since = Some(now),
        (Some(signing), Some(next)) if programmed => {
            keys[signing].not_after = Some(add(now, rotation.overlap));
            keys[next].signs_since = Some(now);
        }
        (Some(_), Some(_)) => {}
        (Some(signing), None) => {
            let made = keys[signing].not_before.unwrap_or(now);
            let since = keys[signing].signs_since.unwrap_or(now);
            let requested = rotation.issued_before.iter().copied().filter(|before| made < *before);
            let waits = rotation.suspend || keys.len() >= MAX_KEYS;
            let due = (!waits).then(|| add(since, rotation.every));
            rotate_at = requested.chain(due).min();
            if keys[signing].algorithm() != algorithm {
                rotate_at = Some(now);
            }
            make = rotate_at.is_some_and(|at| at <= now);
        }
    }
    while make
        && keys.len() >= MAX_KEYS
        && let Some(first) = keys.iter().filter_map(|key| key.not_after).min()
    {
        keys.retain(|key| key.not_after != Some(first));
    }
    let ends = keys.iter().filter_map(|key| key.not_after);
    let until = ends.chain(rotate_at).min().unwrap_or(Timestamp::MAX);
    Decision { keys, make: make.then_some(algorithm), until }
}

/// The key that senders are asked to sign with.
#[must_use]
pub fn signing(keys: &[KeyRecord]) -> Option<&KeyRecord> {
    keys.iter().filter(|key| key.signs_since.is_some()).max_by_key(|key| key.signs_since)
}

/// The status of every key, in the given order.
#[must_use]
pub fn describe(keys: &[KeyRecord], now: Timestamp) -> Vec<WebhookKeyStatus> {
    let begun = |key: &&KeyRecord| key.not_before.is_none_or(|begin| begin <= now);
    let live = |key: &&KeyRecord| key.is_live(now);
    let newest = keys.iter().filter(live).max_by_key(|key| (key.not_before, &key.id)).map(|key| &key.id);
    let state = |key: &KeyRecord| {
        if !begun(&key) {
            WebhookKeyState::Pending
        } else if !live(&key) {
            WebhookKeyState::Expired
        } else if Some(&key.id) == newest {
            WebhookKeyState::Active
        } else {
            WebhookKeyState::Retiring
        }
    };
    keys.iter()
        .map(|key| WebhookKeyStatus {
            id: key.id.clone(),
            fingerprint: key.fingerprint.clone(),
            public_key: key.public_key.clone(),
            state: state(key),
            // A status has whole seconds, whatever is stored with the key.
            valid_until: key.not_after.map(|end| Time(whole_seconds(end))),
            last_verified: None,
        })
        .collect()
}

/// When the state of any key changes next, without any write.
#[must_use]
pub fn next_change(keys: &[KeyRecord], now: Timestamp) -> Option<Timestamp> {
    keys.iter().flat_map(|key| [key.not_before, key.not_after]).flatten().filter(|at| *at > now).min()
}

fn add(to: Timestamp, duration: SignedDuration) -> Timestamp {
    to.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WebhookKeyAlgorithm::{Ed25519, HmacSha256};
    use crate::api::WebhookKeyState::{Active, Expired, Pending, Retiring};

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn key(id: &str, begin: i64, end: Option<i64>) -> KeyRecord {
        KeyRecord { id: id.into(), not_before: Some(at(begin)), not_after: end.map(at), ..KeyRecord::default() }
    }

    fn signs(since: i64, key: KeyRecord) -> KeyRecord {
        KeyRecord { signs_since: Some(at(since)), ..key }
    }

    #[test]
    fn a_key_is_accepted_everywhere_before_it_signs() {
        let rotation = KeyRotation::default();
        assert_eq!(decide(&rotation, HmacSha256, &[], false, at(0)).make, Some(HmacSha256));
        let first = signs(0, key("a", 0, None));
        let kept = decide(&rotation, HmacSha256, std::slice::from_ref(&first), true, at(719));
        assert_eq!((kept.make, kept.until), (None, at(720)));
        let due = decide(&rotation, HmacSha256, std::slice::from_ref(&first), true, at(720));
        assert_eq!(
            (due.make, &due.keys[..]),
            (Some(HmacSha256), &[first.clone()][..]),
            "the first still signs and has no end"
        );
        let both = [first, key("b", 720, None)];
        assert_eq!(
            decide(&rotation, HmacSha256, &both, false, at(800)).keys,
            both,
            "an edge replica does not accept the new key yet"
        );
        let rotated = decide(&rotation, HmacSha256, &both, true, at(800));
        assert_eq!(rotated.keys, [signs(0, key("a", 0, Some(824))), signs(800, key("b", 720, None))]);
        assert_eq!(signing(&rotated.keys).unwrap().id, "b");
        assert_eq!((rotated.make, rotated.until), (None, at(824)));
        let ended = decide(&rotation, HmacSha256, &rotated.keys, true, at(824));
        assert_eq!(ended.keys, [signs(800, key("b", 720, None))]);
        assert_eq!(ended.until, at(1520));
    }

    #[test]
    fn a_request_rotates_older_keys_once() {
        let rotation = KeyRotation { issued_before: vec![at(10)], ..KeyRotation::default() };
        let first = [signs(0, key("a", 0, None))];
        assert_eq!(decide(&rotation, HmacSha256, &first, true, at(9)).until, at(10));
        assert!(decide(&rotation, HmacSha256, &first, true, at(10)).make.is_some());
        let both = [signs(0, key("a", 0, Some(34))), signs(11, key("b", 10, None))];
        assert!(
            decide(&rotation, HmacSha256, &both, true, at(12)).make.is_none(),
            "the new key is not older than the request"
        );
        let suspended = KeyRotation { suspend: true, ..rotation };
        assert!(decide(&suspended, HmacSha256, &first, true, at(10)).make.is_some(), "a request is no schedule");
        assert!(decide(&suspended, HmacSha256, &both[1..], true, at(5000)).make.is_none());
    }

    /// The keys after 100 minutes under these rules.
    fn after_100_minutes(rules: impl Fn(Timestamp) -> KeyRotation) -> Vec<KeyRecord> {
        let mut keys: Vec<KeyRecord> = Vec::new();
        for minute in 0..100 {
            let now = at(0) + SignedDuration::from_mins(minute);
            for _ in 0..2 {
                let decision = decide(&rules(now), HmacSha256, &keys, true, now);
                keys = decision.keys;
                if decision.make.is_some() {
                    let signs_since = (minute == 0).then_some(now);
                    let id = format!("k{minute}");
                    keys.push(KeyRecord { id, not_before: Some(now), signs_since, ..KeyRecord::default() });
                }
            }
            assert!(keys.len() <= MAX_KEYS && signing(&keys).is_some(), "{keys:?}");
        }
        keys
    }

    #[test]
    fn keys_do_not_accumulate() {
        let often = KeyRotation { every: SignedDuration::from_mins(1), ..KeyRotation::default() };
        let keys = after_100_minutes(|_| often.clone());
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"], "each has its overlap");
        // Keys that were asked for are made, and those that end first end.
        let keys = after_100_minutes(|now| KeyRotation { issued_before: vec![now], ..KeyRotation::default() });
        assert_eq!((keys.len(), signing(&keys).unwrap().id.as_str()), (MAX_KEYS, "k99"));
    }

    #[test]
    fn another_algorithm_rotates_immediately_and_once() {
        let suspended = KeyRotation { suspend: true, ..KeyRotation::default() };
        let first = [signs(0, key("a", 0, None))];
        assert_eq!(decide(&suspended, Ed25519, &first, true, at(1)).make, Some(Ed25519));
        let public = KeyRecord { public_key: Some("whpk_".into()), ..key("b", 1, None) };
        let both = [first[0].clone(), public];
        let rotated = decide(&suspended, Ed25519, &both, true, at(1));
        assert_eq!((rotated.make, signing(&rotated.keys).unwrap().id.as_str()), (None, "b"));
        assert!(decide(&suspended, Ed25519, &rotated.keys, true, at(2)).make.is_none());
    }

    #[test]
    fn every_key_has_its_state() {
        let keys =
            [key("old", 0, Some(5)), key("retiring", 1, Some(20)), key("active", 4, None), key("next", 30, None)];
        let states: Vec<WebhookKeyState> = describe(&keys, at(10)).iter().map(|key| key.state).collect();
        assert_eq!(states, [Expired, Retiring, Active, Pending]);
        assert_eq!(next_change(&keys, at(10)), Some(at(20)));
    }
}

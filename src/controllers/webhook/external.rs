//! Which entries of a Secret that somebody else fills are used as keys. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use thiserror::Error;

use super::stored_key::{StoredKey, fingerprint};
use crate::domain::key_set::KeyRecord;
use crate::domain::secret::SecretText;
use crate::domain::text::{counted, listed};

/// Largest size of all keys of a Secret together, in bytes: each webhook that names it has a copy at the edge.
const MAX_BYTES: usize = 128 << 10;

/// The keys of a Secret.
#[derive(Default)]
pub struct ExternalKeys {
    /// Those that are used, by their IDs.
    pub used: Vec<StoredKey>,
    /// How many there are beyond the maximum.
    left_over: usize,
    /// Those that cannot be used, and why.
    unusable: Vec<String>,
}

/// Why an entry of a Secret is not a key.
#[derive(Debug, PartialEq, Eq, Error)]
enum InvalidEntry {
    #[error("the entry {0} is not a time; write RFC 3339")]
    NotATime(String),
    #[error("the entry {0} is not text")]
    NotText(String),
    #[error("the key {0} is too long; all keys together may have {max} KiB", max = MAX_BYTES >> 10)]
    TooLong(String),
}

impl ExternalKeys {
    /// Chooses at most `max` keys, in the order of their IDs, those that have ended last. A key that cannot be used has no effect
    /// on others.
    pub fn choose(
        data: &BTreeMap<String, ByteString>,
        max: usize,
        now: Timestamp,
        check: impl Fn(&StoredKey) -> Result<(), String>,
    ) -> Self {
        let mut chosen = Self::default();
        let mut found = Vec::new();
        for id in data.keys().filter(|entry| !is_bound(entry)) {
            match read(data, id) {
                Ok(key) => found.push(key),
                Err(error) => chosen.unusable.push(error.to_string()),
            }
        }
        found.sort_by_key(|key| key.record.not_after.is_some_and(|end| end <= now));
        let mut bytes = 0;
        for key in found {
            let size = key.key.expose().len();
            if chosen.used.len() == max {
                chosen.left_over += 1;
            } else if bytes + size > MAX_BYTES {
                chosen.unusable.push(InvalidEntry::TooLong(key.record.id).to_string());
            } else if let Err(error) = check(&key) {
                chosen.unusable.push(error);
            } else {
                bytes += size;
                chosen.used.push(key);
            }
        }
        chosen.used.sort_by(|one, other| one.record.id.cmp(&other.record.id));
        chosen
    }

    /// What is wrong with the Secret of this name; `None` if all its keys are used.
    pub fn problem(&self, secret: &str) -> Option<String> {
        if self.used.is_empty() && self.unusable.is_empty() {
            return Some(format!("the Secret {secret}: it holds no key; add one entry for each key"));
        }
        let left_over = (self.left_over > 0).then(|| {
            let more = counted(self.left_over, "more is", "more are");
            format!(
                "{} used and {more} not; remove keys that have ended",
                counted(self.used.len(), "key is", "keys are")
            )
        });
        let unusable = (!self.unusable.is_empty()).then(|| listed(&self.unusable));
        let problems: Vec<String> = left_over.into_iter().chain(unusable).collect();
        (!problems.is_empty()).then(|| format!("the Secret {secret}: {}", problems.join("; ")))
    }
}

/// Whether an entry limits when a key is valid.
fn is_bound(entry: &str) -> bool {
    entry.ends_with(".notBefore") || entry.ends_with(".notAfter")
}

fn read(data: &BTreeMap<String, ByteString>, id: &str) -> Result<StoredKey, InvalidEntry> {
    let text = |entry: &str| data.get(entry).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let time = |entry: String| -> Result<Option<Timestamp>, InvalidEntry> {
        if !data.contains_key(&entry) {
            return Ok(None);
        }
        let time = text(&entry).and_then(|text| text.trim().parse().ok());
        time.map(Some).ok_or(InvalidEntry::NotATime(entry))
    };
    let key = text(id).ok_or_else(|| InvalidEntry::NotText(id.to_owned()))?;
    let record = KeyRecord {
        id: id.to_owned(),
        fingerprint: fingerprint(key.as_bytes()),
        public_key: None,
        not_before: time(format!("{id}.notBefore"))?,
        not_after: time(format!("{id}.notAfter"))?,
        signs_since: None,
    };
    Ok(StoredKey { record, key: SecretText::new(key.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &[u8])]) -> BTreeMap<String, ByteString> {
        entries.iter().map(|(id, text)| ((*id).to_owned(), ByteString(text.to_vec()))).collect()
    }

    fn choose(data: &BTreeMap<String, ByteString>, max: usize) -> ExternalKeys {
        let check = |key: &StoredKey| {
            let short = key.key.expose().len() < 4;
            if short { Err(format!("the key {} is too short", key.record.id)) } else { Ok(()) }
        };
        ExternalKeys::choose(data, max, "2026-06-01T00:00:00Z".parse().unwrap(), check)
    }

    fn used(keys: &ExternalKeys) -> Vec<&str> {
        keys.used.iter().map(|key| key.record.id.as_str()).collect()
    }

    #[test]
    fn keys_have_their_times() {
        let keys = choose(&data(&[("a", b"0123"), ("a.notBefore", b"2026-01-01T00:00:00Z\n")]), 8);
        assert_eq!(keys.used[0].record.not_before, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!((used(&keys), keys.problem("mine")), (vec!["a"], None));
        assert!(choose(&data(&[("a.notAfter", b"")]), 8).problem("mine").unwrap().contains("no key"));
    }

    #[test]
    fn a_key_that_cannot_be_used_has_no_effect_on_others() {
        let long = vec![b'x'; MAX_BYTES];
        let entries = data(&[
            ("a", b"01"),
            ("b", &[255; 8]),
            ("c", b"0123"),
            ("c.notAfter", b"soon"),
            ("d", b"0123"),
            ("e", &long),
        ]);
        let keys = choose(&entries, 8);
        assert_eq!(used(&keys), ["d"]);
        let problem = keys.problem("mine").unwrap();
        for told in ["the key a is too short", "entry b is not text", "c.notAfter is not a time", "key e is too long"] {
            assert!(problem.contains(told), "{problem}");
        }
    }

    #[test]
    fn of_too_many_keys_the_first_are_used_and_ended_ones_last() {
        let entries = data(&[
            ("a", b"0123"),
            ("a.notAfter", b"2026-05-01T00:00:00Z"),
            ("b", b"0123"),
            ("b.notAfter", b"2026-07-01T00:00:00Z"),
            ("c", b"0123"),
            ("d", b"0123"),
        ]);
        let keys = choose(&entries, 2);
        assert_eq!(used(&keys), ["b", "c"]);
        assert_eq!(
            keys.problem("mine").unwrap(),
            "the Secret mine: 2 keys are used and 2 more are not; remove keys that have ended"
        );
        assert_eq!(used(&choose(&entries, 4)), ["a", "b", "c", "d"]);
    }
}

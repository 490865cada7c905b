//! The delivery history of a single replica. It is built for many deliveries in little memory: some tens of bytes for each.
//!
//! A namespace has at most half of the places. When only a quarter of them is left, it is for namespaces that hold less than their
//! even share.

use std::array;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::ReserveError;
use super::identity::Identity;
use crate::edge::front::ProcessLimits;

/// Number of parts, each with a lock of its own, so that removing expired entries from one does not block the others.
const PARTS: usize = 64;
/// Maximum number of remembered deliveries, and the memory of one at most, in bytes.
const MAX_DELIVERIES: usize = 1 << 22;
const DELIVERY_BYTES: usize = 64;
/// How often expired entries are removed from a part, in seconds.
const SWEEP_INTERVAL: u32 = 60;
/// Token of an accepted delivery; no reservation has it.
const DELIVERED: u32 = 0;

/// Half of the digest: two deliveries do not have the same half by accident, and only who signs both could make two that do.
type Key = [u8; 16];

struct Entry {
    /// When it expires, in seconds since the start.
    until: u32,
    /// The token of its reservation, or [`DELIVERED`].
    token: u32,
}

type Deliveries = HashMap<Key, Entry>;

/// A part: its deliveries are spread like digests, so a share of the whole is the same share of every part.
#[derive(Default)]
struct Part {
    namespaces: HashMap<Arc<str>, Deliveries>,
    /// How many deliveries all namespaces have.
    count: usize,
    /// When expired entries were removed.
    swept_at: u32,
}

impl Part {
    /// Whether a namespace that has so many deliveries may have one more of at most `max`.
    fn admits(&self, namespace: &str, max: usize) -> Result<(), ReserveError> {
        let own = self.namespaces.get(namespace).map_or(0, HashMap::len);
        let others = self.namespaces.len() - usize::from(own > 0);
        let even_share = max / (others + 1);
        if self.count >= max {
            Err(ReserveError::Unavailable)
        } else if own >= max / 2 || self.count >= max - max / 4 && own >= even_share {
            Err(ReserveError::ShareExhausted)
        } else {
            Ok(())
        }
    }

    /// Removes expired entries, at most once a second.
    fn sweep(&mut self, now: u32) {
        if now <= self.swept_at {
            return;
        }
        self.swept_at = now;
        self.namespaces.retain(|_, deliveries| {
            deliveries.retain(|_, entry| now < entry.until);
            if deliveries.len() < deliveries.capacity() / 4 {
                deliveries.shrink_to_fit();
            }
            !deliveries.is_empty()
        });
        self.count = self.namespaces.values().map(HashMap::len).sum();
    }

    fn insert(&mut self, namespace: &Arc<str>, key: Key, entry: Entry) {
        let before = match self.namespaces.get_mut(namespace) {
            Some(deliveries) => deliveries.insert(key, entry),
            None => self.namespaces.entry(namespace.clone()).or_default().insert(key, entry),
        };
        self.count += usize::from(before.is_none());
    }

    fn remove(&mut self, namespace: &str, key: Key, token: u32) {
        let Some(deliveries) = self.namespaces.get_mut(namespace) else { return };
        if deliveries.get(&key).is_some_and(|entry| entry.token == token) {
            deliveries.remove(&key);
            self.count -= 1;
            if deliveries.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }
}

/// How many deliveries may be remembered: an eighth of the memory is for them.
#[must_use]
pub fn max_deliveries(limits: ProcessLimits) -> usize {
    MAX_DELIVERIES.min(limits.memory / 8 / DELIVERY_BYTES)
}

/// Deliveries in memory. They are forgotten with the process.
pub(super) struct Memory {
    began: Instant,
    parts: [Mutex<Part>; PARTS],
    /// Maximum number of deliveries in a part.
    max: usize,
}

impl Memory {
    /// Remembers so many deliveries. More are refused: if one was forgotten early, its replay would be accepted.
    pub(super) fn new(max: usize) -> Self {
        Self { began: Instant::now(), parts: array::from_fn(|_| Mutex::default()), max: max / PARTS }
    }

    /// How much of it is used: 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn used(&self) -> f64 {
        let count: usize = self.parts.iter().map(|part| part.lock().count).sum();
        count as f64 / (self.max * PARTS).max(1) as f64
    }

    pub(super) fn reserve(
        &self,
        namespace: &Arc<str>,
        identity: &Identity,
        token: u64,
        lasts: Duration,
        now: Instant,
    ) -> Result<(), ReserveError> {
        let until = self.end(now, lasts);
        self.with(identity, now, |part, key, now| {
            if now >= part.swept_at.saturating_add(SWEEP_INTERVAL) || part.admits(namespace, self.max).is_err() {
                part.sweep(now);
            }
            let known = part.namespaces.get(namespace).and_then(|deliveries| deliveries.get(&key));
            if let Some(entry) = known.filter(|entry| now < entry.until) {
                let is_delivered = entry.token == DELIVERED;
                return Err(if is_delivered { ReserveError::Replayed } else { ReserveError::InProgress });
            }
            part.admits(namespace, self.max)?;
            part.insert(namespace, key, Entry { until, token: short(token) });
            Ok(())
        })
    }

    pub(super) fn confirm(&self, namespace: &Arc<str>, identity: &Identity, window: Duration, now: Instant) {
        let until = self.end(now, window);
        self.with(identity, now, |part, key, _| part.insert(namespace, key, Entry { until, token: DELIVERED }));
    }

    pub(super) fn release(&self, namespace: &str, identity: &Identity, token: u64, now: Instant) {
        self.with(identity, now, |part, key, _| part.remove(namespace, key, short(token)));
    }

    fn with<T>(&self, identity: &Identity, now: Instant, act: impl FnOnce(&mut Part, Key, u32) -> T) -> T {
        let mut key = Key::default();
        key.copy_from_slice(&identity[..16]);
        let now = seconds(now.saturating_duration_since(self.began));
        let part = &self.parts[usize::from(identity[16]) % PARTS];
        act(&mut part.lock(), key, now)
    }

    /// When something that lasts so long ends: never too early.
    fn end(&self, now: Instant, lasts: Duration) -> u32 {
        seconds(now.saturating_duration_since(self.began) + lasts).saturating_add(1)
    }
}

/// A token in half the size; never [`DELIVERED`].
fn short(token: u64) -> u32 {
    u32::try_from(token >> 32).unwrap_or_default() | 1
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Arc<str> {
        "shop".into()
    }

    fn count(memory: &Memory) -> usize {
        memory.parts.iter().map(|part| part.lock().count).sum()
    }

    #[test]
    fn a_delivery_is_new_once_within_its_window() {
        let (memory, start) = (Memory::new(1 << 10), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let reserve = |identity: u8, token: u64, second| {
            memory.reserve(&shop(), &[identity; 32], token << 33, Duration::from_secs(10), after(second))
        };
        assert_eq!(reserve(1, 11, 0), Ok(()));
        assert_eq!(reserve(1, 12, 1), Err(ReserveError::InProgress), "it is being delivered");
        assert_eq!(reserve(2, 21, 1), Ok(()));
        memory.confirm(&shop(), &[1; 32], Duration::from_secs(60), after(2));
        assert_eq!(reserve(1, 13, 61), Err(ReserveError::Replayed));
        assert_eq!(reserve(1, 14, 63), Ok(()), "the window has passed");
        assert_eq!(reserve(2, 22, 63), Ok(()), "it was not confirmed");
        memory.release("shop", &[2; 32], 21 << 33, after(63));
        assert_eq!(reserve(2, 23, 63), Err(ReserveError::InProgress), "an older reservation releases no other");
        memory.release("shop", &[2; 32], 22 << 33, after(63));
        assert_eq!(reserve(2, 24, 63), Ok(()), "its target did not accept it");
        assert_eq!(count(&memory), 2);
        assert_eq!((reserve(1, 15, 200), reserve(2, 25, 200)), (Ok(()), Ok(())));
        assert_eq!(count(&memory), 2, "expired entries are removed");
    }

    #[test]
    fn remembered_deliveries_are_limited_by_memory() {
        let max = |memory| max_deliveries(ProcessLimits { memory, files: usize::MAX });
        assert_eq!((max(256 << 20), max(usize::MAX)), (524_288, 1 << 22));
    }

    type Reserved = Result<(), ReserveError>;

    /// A memory of 64 places in its first part, and what reserves there.
    fn first_part() -> (Memory, impl Fn(&Memory, &str, u16, Instant) -> Reserved) {
        let reserve = |memory: &Memory, namespace: &str, number: u16, at| {
            let mut identity = [0; 32];
            identity[..2].copy_from_slice(&number.to_be_bytes());
            identity[2] = namespace.as_bytes()[0];
            memory.reserve(&namespace.into(), &identity, 1, Duration::from_secs(5), at)
        };
        (Memory::new(64 * PARTS), reserve)
    }

    #[test]
    fn the_memory_is_bounded_and_what_has_ended_makes_room() {
        let (memory, reserve) = first_part();
        let start = Instant::now();
        assert!((0..32).all(|number| reserve(&memory, "shop", number, start).is_ok()));
        assert_eq!(reserve(&memory, "shop", 32, start), Err(ReserveError::ShareExhausted));
        assert_eq!(reserve(&memory, "shop", 0, start), Err(ReserveError::InProgress), "what it holds is known");
        assert_eq!(reserve(&memory, "shop", 32, start + Duration::from_secs(7)), Ok(()), "long before the next sweep");
        assert_eq!(count(&memory), 1);
    }

    #[test]
    fn a_namespace_leaves_places_to_others() {
        let (memory, reserve) = first_part();
        let start = Instant::now();
        let fill =
            |namespace: &str| (0..100).filter(|number| reserve(&memory, namespace, *number, start).is_ok()).count();
        assert_eq!(fill("evil"), 32, "half of them");
        assert_eq!(fill("big"), 32, "the even share of two");
        assert_eq!(fill("late"), 0);
        assert_eq!(reserve(&memory, "late", 0, start), Err(ReserveError::Unavailable));

        let (memory, reserve) = first_part();
        let fill = |namespace: &str, count| {
            (0..count).filter(|number| reserve(&memory, namespace, *number, start).is_ok()).count()
        };
        assert_eq!((fill("shop", 4), fill("evil", 100), fill("x", 100)), (4, 32, 21), "even share of three");
        assert_eq!(fill("shop", 8), 4, "what holds little has places");
    }
}

//! The delivery history of a single replica. It is built for many deliveries in little memory: some tens of bytes for each.

use std::array;
use std::collections::HashMap;
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

#[derive(Default)]
struct Part {
    deliveries: HashMap<Key, Entry>,
    /// When expired entries are removed next.
    sweep_at: u32,
}

impl Part {
    /// Removes expired entries, from time to time and whenever the part is full.
    fn expire(&mut self, now: u32, max: usize) {
        if now >= self.sweep_at || self.deliveries.len() >= max {
            self.sweep_at = now.saturating_add(SWEEP_INTERVAL);
            self.deliveries.retain(|_, entry| now < entry.until);
            if self.deliveries.len() < self.deliveries.capacity() / 4 {
                self.deliveries.shrink_to_fit();
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

    pub(super) fn reserve(
        &self,
        identity: &Identity,
        token: u64,
        lasts: Duration,
        now: Instant,
    ) -> Result<(), ReserveError> {
        let until = self.end(now, lasts);
        self.with(identity, now, |part, key, now| {
            part.expire(now, self.max);
            if let Some(entry) = part.deliveries.get(&key).filter(|entry| now < entry.until) {
                let is_delivered = entry.token == DELIVERED;
                return Err(if is_delivered { ReserveError::Replayed } else { ReserveError::InProgress });
            }
            if part.deliveries.len() >= self.max {
                return Err(ReserveError::Unavailable);
            }
            part.deliveries.insert(key, Entry { until, token: short(token) });
            Ok(())
        })
    }

    pub(super) fn confirm(&self, identity: &Identity, window: Duration, now: Instant) {
        let until = self.end(now, window);
        self.with(identity, now, |part, key, _| part.deliveries.insert(key, Entry { until, token: DELIVERED }));
    }

    pub(super) fn release(&self, identity: &Identity, token: u64, now: Instant) {
        self.with(identity, now, |part, key, _| {
            if part.deliveries.get(&key).is_some_and(|entry| entry.token == short(token)) {
                part.deliveries.remove(&key);
            }
        });
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

    fn count(memory: &Memory) -> usize {
        memory.parts.iter().map(|part| part.lock().deliveries.len()).sum()
    }

    #[test]
    fn a_delivery_is_new_once_within_its_window() {
        let (memory, start) = (Memory::new(1 << 10), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let reserve = |identity: u8, token: u64, second| {
            memory.reserve(&[identity; 32], token << 33, Duration::from_secs(10), after(second))
        };
        assert_eq!(reserve(1, 11, 0), Ok(()));
        assert_eq!(reserve(1, 12, 1), Err(ReserveError::InProgress), "it is being delivered");
        assert_eq!(reserve(2, 21, 1), Ok(()));
        memory.confirm(&[1; 32], Duration::from_secs(60), after(2));
        assert_eq!(reserve(1, 13, 61), Err(ReserveError::Replayed));
        assert_eq!(reserve(1, 14, 63), Ok(()), "the window has passed");
        assert_eq!(reserve(2, 22, 63), Ok(()), "it was not confirmed");
        memory.release(&[2; 32], 21 << 33, after(63));
        assert_eq!(reserve(2, 23, 63), Err(ReserveError::InProgress), "an older reservation releases no other");
        memory.release(&[2; 32], 22 << 33, after(63));
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

    #[test]
    fn the_memory_is_bounded_and_what_has_ended_makes_room() {
        let memory = Memory::new(4 * PARTS);
        let start = Instant::now();
        let reserve = |number: u16, at| {
            let mut identity = [0; 32];
            identity[..2].copy_from_slice(&number.to_be_bytes());
            memory.reserve(&identity, 1, Duration::from_secs(5), at)
        };
        assert!((0..4).all(|number| reserve(number, start).is_ok()));
        assert_eq!(reserve(4, start), Err(ReserveError::Unavailable));
        assert_eq!(reserve(4, start + Duration::from_secs(7)), Ok(()), "long before the next sweep");
        assert_eq!(count(&memory), 1);
    }
}

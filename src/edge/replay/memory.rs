//! The replay memory of a single edge. It is built for many deliveries in little memory: some tens of bytes for each.

use std::array;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Identity, NotClaimed};

/// Parts with a lock of their own, so that looking through one for what has ended keeps nobody waiting.
const PARTS: usize = 64;
/// How often a part is looked through, in seconds.
const SWEEP: u32 = 60;
/// Token of what was delivered: no claim has it.
const DELIVERED: u32 = 0;

/// Half of the digest: no two deliveries have the same by accident, and who could make two that have signs both.
type Key = [u8; 16];

struct Entry {
    /// When it is forgotten, in seconds since the memory began.
    until: u32,
    /// Tells the claim that made it, or [`DELIVERED`].
    token: u32,
}

#[derive(Default)]
struct Part {
    deliveries: HashMap<Key, Entry>,
    /// When it is looked through next.
    sweep_at: u32,
}

impl Part {
    /// Forgets what has ended, now and then, and whenever there is no room.
    fn expire(&mut self, now: u32, most: usize) {
        if now >= self.sweep_at || self.deliveries.len() >= most {
            self.sweep_at = now.saturating_add(SWEEP);
            self.deliveries.retain(|_, entry| now < entry.until);
            if self.deliveries.len() < self.deliveries.capacity() / 4 {
                self.deliveries.shrink_to_fit();
            }
        }
    }
}

/// Deliveries in memory. Forgotten with the process.
pub(super) struct Memory {
    began: Instant,
    parts: [Mutex<Part>; PARTS],
    /// How many deliveries a part remembers at most.
    most: usize,
}

impl Memory {
    /// Remembers so many deliveries; more are refused, since forgetting one early would let it in again.
    pub(super) fn new(most: usize) -> Self {
        Self { began: Instant::now(), parts: array::from_fn(|_| Mutex::default()), most: most / PARTS }
    }

    pub(super) fn claim(
        &self,
        identity: &Identity,
        token: u64,
        lasts: Duration,
        now: Instant,
    ) -> Result<(), NotClaimed> {
        let until = self.end(now, lasts);
        self.with(identity, now, |part, key, now| {
            part.expire(now, self.most);
            if part.deliveries.get(&key).is_some_and(|entry| now < entry.until) {
                return Err(NotClaimed::Replayed);
            }
            if part.deliveries.len() >= self.most {
                return Err(NotClaimed::Unavailable);
            }
            part.deliveries.insert(key, Entry { until, token: short(token) });
            Ok(())
        })
    }

    pub(super) fn keep(&self, identity: &Identity, window: Duration, now: Instant) {
        let until = self.end(now, window);
        self.with(identity, now, |part, key, _| part.deliveries.insert(key, Entry { until, token: DELIVERED }));
    }

    pub(super) fn give_back(&self, identity: &Identity, token: u64, now: Instant) {
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
        act(&mut part.lock().unwrap_or_else(PoisonError::into_inner), key, now)
    }

    /// When something that lasts so long is over: never too early.
    fn end(&self, now: Instant, lasts: Duration) -> u32 {
        seconds(now.saturating_duration_since(self.began) + lasts).saturating_add(1)
    }
}

/// A token in less room; never [`DELIVERED`].
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
        memory.parts.iter().map(|part| part.lock().unwrap().deliveries.len()).sum()
    }

    #[test]
    fn a_delivery_is_new_once_within_its_window() {
        let (memory, start) = (Memory::new(1 << 10), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let claim = |identity: u8, token: u64, second| {
            memory.claim(&[identity; 32], token << 33, Duration::from_secs(10), after(second))
        };
        assert_eq!(claim(1, 11, 0), Ok(()));
        assert_eq!(claim(1, 12, 1), Err(NotClaimed::Replayed), "it is being delivered");
        assert_eq!(claim(2, 21, 1), Ok(()));
        memory.keep(&[1; 32], Duration::from_secs(60), after(2));
        assert_eq!(claim(1, 13, 61), Err(NotClaimed::Replayed));
        assert_eq!(claim(1, 14, 63), Ok(()), "the window has passed");
        assert_eq!(claim(2, 22, 63), Ok(()), "nobody kept it");
        memory.give_back(&[2; 32], 21 << 33, after(63));
        assert_eq!(claim(2, 23, 63), Err(NotClaimed::Replayed), "an older claim gives back nothing of another");
        memory.give_back(&[2; 32], 22 << 33, after(63));
        assert_eq!(claim(2, 24, 63), Ok(()), "its target did not take it");
        assert_eq!(count(&memory), 2);
        assert_eq!((claim(1, 15, 200), claim(2, 25, 200)), (Ok(()), Ok(())));
        assert_eq!(count(&memory), 2, "what has ended is forgotten");
    }

    #[test]
    fn the_memory_is_bounded_and_what_has_ended_makes_room() {
        let memory = Memory::new(4 * PARTS);
        let start = Instant::now();
        let claim = |number: u16, at| {
            let mut identity = [0; 32];
            identity[..2].copy_from_slice(&number.to_be_bytes());
            memory.claim(&identity, 1, Duration::from_secs(5), at)
        };
        assert!((0..4).all(|number| claim(number, start).is_ok()));
        assert_eq!(claim(4, start), Err(NotClaimed::Unavailable));
        assert_eq!(claim(4, start + Duration::from_secs(7)), Ok(()), "long before it is looked through by itself");
        assert_eq!(count(&memory), 1);
    }
}

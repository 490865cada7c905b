//! The replay memory of a single edge.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Identity, NotClaimed};

/// How many deliveries are remembered at most; more are refused, since forgetting one early would let it in again.
const MOST: usize = 1 << 20;
/// Token of what was delivered: no claim has it.
const DELIVERED: u64 = 0;

#[derive(Default)]
struct Remembered {
    /// With the token of its claim, and its place among the ends.
    deliveries: HashMap<Identity, (u64, (Instant, u64))>,
    /// In the order in which they are forgotten; numbered, since two may end at one moment.
    ends: BTreeMap<(Instant, u64), Identity>,
    number: u64,
}

impl Remembered {
    fn set(&mut self, identity: Identity, token: u64, until: Instant) {
        self.forget(&identity);
        self.number += 1;
        self.deliveries.insert(identity, (token, (until, self.number)));
        self.ends.insert((until, self.number), identity);
    }

    fn forget(&mut self, identity: &Identity) {
        if let Some((_, end)) = self.deliveries.remove(identity) {
            self.ends.remove(&end);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(end) = self.ends.first_entry().filter(|end| end.key().0 <= now) {
            self.deliveries.remove(&end.remove());
        }
    }
}

/// Deliveries in memory. Forgotten with the process.
#[derive(Default)]
pub(super) struct Memory(Mutex<Remembered>);

impl Memory {
    fn remembered(&self, now: Instant) -> MutexGuard<'_, Remembered> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.expire(now);
        remembered
    }

    pub(super) fn claim(
        &self,
        identity: Identity,
        token: u64,
        lasts: Duration,
        now: Instant,
    ) -> Result<(), NotClaimed> {
        let mut remembered = self.remembered(now);
        if remembered.deliveries.contains_key(&identity) {
            return Err(NotClaimed::Replayed);
        }
        if remembered.deliveries.len() >= MOST {
            return Err(NotClaimed::Unavailable);
        }
        remembered.set(identity, token, now + lasts);
        Ok(())
    }

    pub(super) fn keep(&self, identity: Identity, window: Duration, now: Instant) {
        self.remembered(now).set(identity, DELIVERED, now + window);
    }

    pub(super) fn give_back(&self, identity: &Identity, token: u64, now: Instant) {
        let mut remembered = self.remembered(now);
        if remembered.deliveries.get(identity).is_some_and(|(holder, _)| *holder == token) {
            remembered.forget(identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_new_once_within_its_window() {
        let (memory, start) = (Memory::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let claim =
            |identity: u8, token, second| memory.claim([identity; 32], token, Duration::from_secs(10), after(second));
        assert_eq!(claim(1, 11, 0), Ok(()));
        assert_eq!(claim(1, 12, 1), Err(NotClaimed::Replayed), "it is being delivered");
        assert_eq!(claim(2, 21, 1), Ok(()));
        memory.keep([1; 32], Duration::from_secs(60), after(2));
        assert_eq!(claim(1, 13, 61), Err(NotClaimed::Replayed));
        assert_eq!(claim(1, 14, 62), Ok(()), "the window has passed");
        assert_eq!(claim(2, 22, 62), Ok(()), "nobody kept it");
        memory.give_back(&[2; 32], 21, after(62));
        assert_eq!(claim(2, 23, 62), Err(NotClaimed::Replayed), "an older claim gives back nothing of another");
        memory.give_back(&[2; 32], 22, after(62));
        assert_eq!(claim(2, 24, 62), Ok(()), "its target did not take it");
        let remembered = |at| {
            let remembered = memory.remembered(at);
            (remembered.deliveries.len(), remembered.ends.len())
        };
        assert_eq!(remembered(after(62)), (2, 2));
        assert_eq!(remembered(after(100)), (0, 0), "nothing stays in memory");
    }
}

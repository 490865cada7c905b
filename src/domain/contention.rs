//! Backoff for repairing an object that another writer keeps changing: immediately the first time, then after growing pauses,
//! so that two writers do not overwrite each other without end.

use std::time::{Duration, Instant};

/// The pause after the first repair. It doubles with every further repair.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// After this time without a repair, the backoff starts again.
const RESET_AFTER: Duration = Duration::from_secs(600);
/// After this number of repairs in a row, the object counts as contended.
const CONTENDED_AFTER: u32 = 3;

/// The repairs of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contention {
    repairs: u32,
    last: Instant,
}

impl Contention {
    /// The state after the first repair.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { repairs: 1, last: now }
    }

    /// The state after one more repair.
    #[must_use]
    pub fn repaired(self, now: Instant) -> Self {
        Self { repairs: if self.is_over(now) { 1 } else { self.repairs.saturating_add(1) }, last: now }
    }

    /// When the next repair may be made.
    #[must_use]
    pub fn repair_at(self) -> Instant {
        let doublings = self.repairs.saturating_sub(1).min(8);
        self.last + (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE)
    }

    /// Until when the object counts as contended; `None` if it does not.
    #[must_use]
    pub fn contended_until(self) -> Option<Instant> {
        (self.repairs >= CONTENDED_AFTER).then_some(self.last + 2 * MAX_PAUSE)
    }

    /// Whether the last repair is so long ago that the backoff starts again.
    #[must_use]
    pub fn is_over(self, now: Instant) -> bool {
        now.duration_since(self.last) > RESET_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_contention_costs_one_write_a_minute() {
        let start = Instant::now();
        let mut contention = Contention::new(start);
        let mut now = contention.repair_at();
        assert_eq!(now - start, FIRST_PAUSE);
        let mut writes = vec![start];
        while now - start < Duration::from_secs(3600) {
            writes.push(now);
            contention = contention.repaired(now);
            now = contention.repair_at();
        }
        assert!(contention.contended_until().is_some_and(|until| until > now), "it still counts as contended");
        assert!((58..=66).contains(&writes.len()), "{} writes", writes.len());
        let first = writes.iter().filter(|at| **at - start < Duration::from_secs(60)).count();
        assert!(first <= 4, "{first} writes in the first minute");
    }

    #[test]
    fn after_a_quiet_time_repairs_are_immediate_again() {
        let start = Instant::now();
        let contended = Contention::new(start).repaired(start).repaired(start);
        assert!(contended.contended_until().is_some() && !contended.is_over(start));
        let later = start + RESET_AFTER + Duration::from_secs(1);
        assert!(contended.is_over(later));
        assert_eq!(contended.repaired(later).contended_until(), None);
    }
}

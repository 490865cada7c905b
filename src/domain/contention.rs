//! When an object is repaired that somebody else keeps changing: at once the first time, then less and less often, so
//! that two writers do not overwrite each other without end.

use std::time::{Duration, Instant};

/// The pause after the first repair; it doubles with each one that follows.
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// After so long without a repair everything is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// From so many repairs in a row on the object counts as contended.
const CONTENDED: u32 = 3;

/// The repairs of one object. Time is a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contention {
    repairs: u32,
    last: Instant,
}

impl Contention {
    /// After the first repair.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { repairs: 1, last: now }
    }

    /// After one more repair.
    #[must_use]
    pub fn repaired(self, now: Instant) -> Self {
        Self { repairs: if self.is_over(now) { 1 } else { self.repairs.saturating_add(1) }, last: now }
    }

    /// When the next repair may be made.
    #[must_use]
    pub fn repair_at(self) -> Instant {
        let doublings = self.repairs.saturating_sub(1).min(8);
        self.last + (FIRST * 2_u32.pow(doublings)).min(LONGEST)
    }

    /// When the contention counts as over, if there is one.
    #[must_use]
    pub fn contended_until(self) -> Option<Instant> {
        (self.repairs >= CONTENDED).then_some(self.last + 2 * LONGEST)
    }

    /// Whether it has been quiet for long enough to forget.
    #[must_use]
    pub fn is_over(self, now: Instant) -> bool {
        now.duration_since(self.last) > FORGOTTEN
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
        assert_eq!(now - start, FIRST);
        let mut writes = vec![start];
        while now - start < Duration::from_secs(3600) {
            writes.push(now);
            contention = contention.repaired(now);
            now = contention.repair_at();
        }
        assert!(contention.contended_until().is_some_and(|until| until > now), "it does not count as ended in between");
        assert!((58..=66).contains(&writes.len()), "{} writes", writes.len());
        let first = writes.iter().filter(|at| **at - start < Duration::from_secs(60)).count();
        assert!(first <= 4, "{first} writes in the first minute");
    }

    #[test]
    fn after_a_pause_a_change_is_repaired_at_once() {
        let start = Instant::now();
        let contended = Contention::new(start).repaired(start).repaired(start);
        assert!(contended.contended_until().is_some() && !contended.is_over(start));
        let later = start + FORGOTTEN + Duration::from_secs(1);
        assert!(contended.is_over(later));
        assert_eq!(contended.repaired(later).contended_until(), None);
    }
}

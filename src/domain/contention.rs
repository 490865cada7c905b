//! When something is put back that somebody else keeps changing: at once the first time, then ever more seldom, so
//! that two writers do not wear each other out.

use std::time::{Duration, Instant};

/// The pause after the first repair; it doubles with each one that follows.
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// After so long in peace everything is forgotten.
const PEACE: Duration = Duration::from_secs(600);
/// From so many repairs in a row on it is a fight.
const FIGHT: u32 = 3;

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

    /// When it counts as ended, if somebody keeps at it.
    #[must_use]
    pub fn fight_until(self) -> Option<Instant> {
        (self.repairs >= FIGHT).then_some(self.last + 2 * LONGEST)
    }

    /// Whether it has been quiet for long enough to forget.
    #[must_use]
    pub fn is_over(self, now: Instant) -> bool {
        now.duration_since(self.last) > PEACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_fighting_costs_one_write_a_minute() {
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
        assert!(contention.fight_until().is_some_and(|until| until > now), "it does not count as ended in between");
        assert!((58..=66).contains(&writes.len()), "{} writes", writes.len());
        let first = writes.iter().filter(|at| **at - start < Duration::from_secs(60)).count();
        assert!(first <= 4, "{first} writes in the first minute");
    }

    #[test]
    fn after_peace_a_change_is_repaired_at_once_and_is_no_fight() {
        let start = Instant::now();
        let fought = Contention::new(start).repaired(start).repaired(start);
        assert!(fought.fight_until().is_some() && !fought.is_over(start));
        let later = start + PEACE + Duration::from_secs(1);
        assert!(fought.is_over(later));
        assert_eq!(fought.repaired(later).fight_until(), None);
    }
}

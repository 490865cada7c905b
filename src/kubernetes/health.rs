//! How far this process has come, and which of its parts do not work at the moment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// How long a part may fail before it counts: a restart of the API server is nothing to report.
const GRACE: Duration = Duration::from_secs(30);
/// A part that has not failed for so long works again: failures repeat at least this often.
const RECOVERED: Duration = Duration::from_secs(15);

/// How far this process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Another process holds the lease; this one takes over when that one is gone.
    #[default]
    StandingBy,
    /// It has not listed everything yet.
    Starting,
    /// The controllers are at work.
    Working,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    why: String,
}

#[derive(Debug, Default)]
struct Check {
    started: bool,
    failing: Option<Failing>,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    checks: BTreeMap<&'static str, Check>,
}

/// The state that `/readyz` tells. Every part stands for a controller, or for a watch that they share.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Enters a stage. Standing by, a process has no parts that could fail.
    pub fn enter(&self, stage: Stage) {
        let mut state = self.state();
        state.stage = stage;
        if stage == Stage::StandingBy {
            state.checks.clear();
        }
    }

    /// A part that is not at work yet.
    pub fn starting(&self, part: &'static str) {
        self.state().checks.insert(part, Check::default());
    }

    /// A part is at work.
    pub fn started(&self, part: &'static str) {
        self.state().checks.insert(part, Check { started: true, failing: None });
    }

    /// A part failed, and tries again.
    pub fn failed(&self, part: &'static str, why: String, now: Instant) {
        let mut state = self.state();
        let check = state.checks.entry(part).or_default();
        let since = match &check.failing {
            Some(before) if now.duration_since(before.last) < RECOVERED => before.since,
            _ => now,
        };
        check.failing = Some(Failing { since, last: now, why });
    }

    /// The stage, and for every part what is wrong with it.
    #[must_use]
    pub fn report(&self, now: Instant) -> (Stage, Vec<(&'static str, Option<String>)>) {
        let state = self.state();
        let told = |check: &Check| {
            let failing = check.failing.as_ref().filter(|it| now.duration_since(it.last) < RECOVERED);
            match (check.started, failing) {
                (false, None) => Some("not at work yet".to_owned()),
                (false, Some(failing)) => Some(format!("not at work yet: {}", failing.why)),
                (true, Some(failing)) if failing.last.duration_since(failing.since) >= GRACE => {
                    let seconds = now.duration_since(failing.since).as_secs();
                    Some(format!("failing for {seconds} s: {}", failing.why))
                }
                (true, _) => None,
            }
        };
        (state.stage, state.checks.iter().map(|(part, check)| (*part, told(check))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_counts_as_failing_when_it_does_not_recover() {
        let (health, start) = (Health::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        health.starting("identity");
        assert!(health.report(start).1[0].1.is_some());
        health.failed("identity", "no such kind".into(), start);
        assert_eq!(health.report(start).1[0].1.as_deref(), Some("not at work yet: no such kind"));
        health.started("identity");
        for second in (0..60).step_by(5) {
            health.failed("identity", "no route".into(), at(second));
            assert_eq!(health.report(at(second)).1[0].1.is_some(), second >= 30, "after {second} s");
        }
        assert!(health.report(at(60)).1[0].1.as_ref().unwrap().contains("no route"));
        assert_eq!(health.report(at(80)).1[0].1, None, "it has not failed any more");
        health.failed("identity", "again".into(), at(200));
        assert_eq!(health.report(at(200)).1[0].1, None, "a failure of its own");
    }

    #[test]
    fn who_stands_by_has_no_parts() {
        let health = Health::default();
        health.enter(Stage::Working);
        health.started("identity");
        health.enter(Stage::StandingBy);
        assert_eq!(health.report(Instant::now()), (Stage::StandingBy, vec![]));
    }
}

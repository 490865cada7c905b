//! The health of this process: its stage, and which of its parts fail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// How long a part may fail before it is reported: a restart of the API server is not.
const GRACE_PERIOD: Duration = Duration::from_secs(30);
/// After how long without a failure a part has recovered. A part that fails does so at least this often.
const RECOVERY_TIME: Duration = Duration::from_secs(15);

/// The stage of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Another replica holds the lease; this one takes over when the lease expires or is released.
    #[default]
    StandingBy,
    /// The caches are not synced yet.
    Starting,
    /// The controllers run.
    Working,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    error: String,
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

/// The state that `/readyz` reports. A part is a controller, or a watch that controllers share.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Enters a stage. A standby replica has no parts.
    pub fn enter(&self, stage: Stage) {
        let mut state = self.state();
        state.stage = stage;
        if stage == Stage::StandingBy {
            state.checks.clear();
        }
    }

    /// Notes that a part is starting.
    pub fn starting(&self, part: &'static str) {
        self.state().checks.insert(part, Check::default());
    }

    /// Notes that a part has started.
    pub fn started(&self, part: &'static str) {
        self.state().checks.insert(part, Check { started: true, failing: None });
    }

    /// Notes that a part failed and is retrying.
    pub fn failed(&self, part: &'static str, error: String, now: Instant) {
        let mut state = self.state();
        let check = state.checks.entry(part).or_default();
        let since = match &check.failing {
            Some(before) if now.duration_since(before.last) < RECOVERY_TIME => before.since,
            _ => now,
        };
        check.failing = Some(Failing { since, last: now, error });
    }

    /// The stage, and the problem of every part, if it has one.
    #[must_use]
    pub fn report(&self, now: Instant) -> (Stage, Vec<(&'static str, Option<String>)>) {
        let state = self.state();
        let problem = |check: &Check| {
            let failing = check.failing.as_ref().filter(|it| now.duration_since(it.last) < RECOVERY_TIME);
            match (check.started, failing) {
                (false, None) => Some("not started yet".to_owned()),
                (false, Some(failing)) => Some(format!("not started yet: {}", failing.error)),
                (true, Some(failing)) if failing.last.duration_since(failing.since) >= GRACE_PERIOD => {
                    let seconds = now.duration_since(failing.since).as_secs();
                    Some(format!("failing for {seconds} s: {}", failing.error))
                }
                (true, _) => None,
            }
        };
        (state.stage, state.checks.iter().map(|(part, check)| (*part, problem(check))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_fails_when_it_does_not_recover_in_time() {
        let (health, start) = (Health::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        health.starting("identity");
        assert!(health.report(start).1[0].1.is_some());
        health.failed("identity", "no such kind".into(), start);
        assert_eq!(health.report(start).1[0].1.as_deref(), Some("not started yet: no such kind"));
        health.started("identity");
        for second in (0..60).step_by(5) {
            health.failed("identity", "no route".into(), at(second));
            assert_eq!(health.report(at(second)).1[0].1.is_some(), second >= 30, "after {second} s");
        }
        assert!(health.report(at(60)).1[0].1.as_ref().unwrap().contains("no route"));
        assert_eq!(health.report(at(80)).1[0].1, None, "it has recovered");
        health.failed("identity", "again".into(), at(200));
        assert_eq!(health.report(at(200)).1[0].1, None, "a new failure");
    }

    #[test]
    fn a_standby_replica_has_no_parts() {
        let health = Health::default();
        health.enter(Stage::Working);
        health.started("identity");
        health.enter(Stage::StandingBy);
        assert_eq!(health.report(Instant::now()), (Stage::StandingBy, vec![]));
    }
}

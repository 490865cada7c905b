//! When an object is looked at again.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::ConditionType;

/// How long until `then`, but ten minutes at most: the wall clock may be set in between.
#[must_use]
pub fn wait(now: Timestamp, then: Timestamp) -> Duration {
    let left = u64::try_from(then.duration_since(now).as_secs()).unwrap_or(0);
    Duration::from_secs(left.clamp(1, 600))
}

/// When a condition that is not met is tried again: after as long as it has not been met already, within bounds. So what
/// keeps failing is tried less and less often, also across a restart.
#[must_use]
pub fn retry_in(
    conditions: &[Condition],
    kind: ConditionType,
    now: Timestamp,
    (min, max): (Duration, Duration),
) -> Duration {
    let unmet = conditions.iter().find(|it| it.type_ == kind.as_str() && it.status == "False");
    let since = unmet.map_or(now, |condition| condition.last_transition_time.0);
    Duration::try_from(now.duration_since(since)).unwrap_or_default().clamp(min, max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Conditions, Reason};

    #[test]
    fn a_condition_that_keeps_failing_is_tried_less_and_less_often() {
        let bounds = (Duration::from_secs(5), Duration::from_secs(60));
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Conditions::new();
        conditions.unmet(ConditionType::Applied, Reason::GrantsFailed, "refused");
        let failed = conditions.merge(&[], Some(1), at(100));
        for (now, pause) in [(101, 5), (120, 20), (1000, 60), (50, 5)] {
            let next = retry_in(&failed, ConditionType::Applied, at(now), bounds);
            assert_eq!(next, Duration::from_secs(pause), "at {now}");
        }
        assert_eq!(retry_in(&[], ConditionType::Applied, at(1), bounds), bounds.0);
    }
}

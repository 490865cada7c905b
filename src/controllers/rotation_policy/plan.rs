//! Decides what a rotation policy reports, and when it counts again. No client here.

use std::time::Duration;

use super::observe::{Observed, Targets};
use crate::api::{ConditionType, Conditions, Reason, RotationPolicyStatus};
use crate::controllers::shared::rotation_policies::MAX_POLICIES;
use crate::controllers::shared::timing::wait;
use crate::domain::rotation::Rules;
use crate::domain::text::counted;
use crate::kubernetes::run::Next;

/// How often a policy with outstanding targets counts again.
const RECOUNT: Duration = Duration::from_secs(5);
/// When a policy that is one too many looks again whether others are gone.
const RETRY: Duration = Duration::from_secs(300);
/// How many identities are named in status.
const NAMED: usize = 10;

/// What a rotation policy reports.
pub struct Plan {
    /// Its status, conditions aside.
    pub status: RotationPolicyStatus,
    pub conditions: Conditions,
    pub next: Next,
}

pub fn plan(observed: &Observed) -> Plan {
    let mut conditions = Conditions::new();
    let mut status = RotationPolicyStatus::default();
    let mut next = None;
    match &observed.rules {
        _ if observed.exceeds => {
            let message = format!(
                "the namespace has more than {MAX_POLICIES} RotationPolicies, and only the first by name have an effect; delete others"
            );
            conditions.unmet(ConditionType::Accepted, Reason::LimitExceeded, message);
            next = Some(RETRY);
        }
        Err(invalid) => {
            conditions.unmet(ConditionType::Accepted, Reason::InvalidPolicy, format!("{invalid}; it has no effect"));
        }
        Ok(rules) => {
            conditions.met(ConditionType::Accepted, Reason::Valid, "the spec is valid");
            let Targets { all, outstanding } = observed.targets;
            (status.targets, status.outstanding) = (all, outstanding);
            status.in_progress = observed.in_progress.iter().take(NAMED).map(ToString::to_string).collect();
            let is_rotating = outstanding > 0 || !observed.in_progress.is_empty();
            let upcoming = rules.issued_before.iter().copied().filter(|before| *before > observed.now).min();
            next = is_rotating.then_some(RECOUNT).or_else(|| Some(wait(observed.now, upcoming?)));
            describe_rotation(rules, &status, &mut conditions);
        }
    }
    Plan { status, conditions, next }
}

fn describe_rotation(rules: &Rules, status: &RotationPolicyStatus, conditions: &mut Conditions) {
    if rules.suspend {
        let message = "renewals are suspended; only what would expire is renewed. Unset spec.suspend to resume";
        conditions.unmet(ConditionType::Rotated, Reason::Suspended, message);
    } else if status.outstanding > 0 {
        let in_progress = match status.in_progress.as_slice() {
            [] => "none".to_owned(),
            named => named.join(", "),
        };
        let message = format!(
            "{} of {} still use a certificate or a key from before issuedBefore; being renewed: {in_progress}",
            status.outstanding,
            counted(status.targets as usize, "object", "objects"),
        );
        conditions.unmet(ConditionType::Rotated, Reason::RenewalPending, message);
    } else {
        conditions.met(ConditionType::Rotated, Reason::Renewed, "nothing is outstanding");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::domain::name::Name;

    fn observed(outstanding: u32, in_progress: &[&str]) -> Observed {
        let policy = json!({
            "apiVersion": "credence.dev/v1alpha1", "kind": "RotationPolicy",
            "metadata": {"name": "daily", "namespace": "shop"},
            "spec": {"targets": [{"kind": "ServiceIdentity"}]},
        });
        Observed {
            policy: Arc::new(serde_json::from_value(policy).unwrap()),
            status: RotationPolicyStatus::default(),
            exceeds: false,
            rules: Ok(Rules::default()),
            targets: Targets { all: 3, outstanding },
            in_progress: in_progress.iter().map(|name| Name::new(Some("shop"), name)).collect(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_policy_counts_again_while_something_is_outstanding() {
        let pending = plan(&observed(1, &["orders"]));
        assert_eq!((pending.next, pending.status.outstanding), (Some(RECOUNT), 1));
        assert_eq!(pending.status.in_progress, ["shop/orders"]);
        assert!(pending.conditions.is_unmet());
        let done = plan(&observed(0, &[]));
        assert_eq!(done.next, None);
        assert!(!done.conditions.is_unmet());
    }

    #[test]
    fn a_policy_that_is_one_too_many_has_no_effect_and_says_so() {
        let planned = plan(&Observed { exceeds: true, ..observed(0, &[]) });
        assert!(planned.conditions.is_unmet());
        assert_eq!((planned.status.targets, planned.next), (0, Some(RETRY)));
    }

    #[test]
    fn a_policy_wakes_when_its_date_comes() {
        let mut observed = observed(0, &[]);
        let before = vec![observed.now + SignedDuration::from_secs(60)];
        observed.rules = Ok(Rules { issued_before: before, ..Rules::default() });
        assert_eq!(plan(&observed).next, Some(Duration::from_secs(60)));
    }
}

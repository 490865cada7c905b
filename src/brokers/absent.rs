//! Decides what becomes of the rights of policies that do not exist any more: their finalizer was removed, or the store of the
//! API server was restored from a time before them. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::records::{Record, Records};
use super::{Failures, MAX_LISTED};
pub use crate::api::AbsentPolicies;
use crate::api::AppliedBinding;
use crate::domain::grants::Bindings;

/// Up to how many recorded rights of a broker are revoked at once by themselves: this many, or this share of all (in percent),
/// whichever is more. A restored or empty store must not revoke everything.
const BY_ITSELF: (usize, usize) = (10, 20);

/// Rights that are not revoked before the platform says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// How many ACLs.
    pub bindings: usize,
    /// The policies that they were made for, as `namespace/name`; the first ones.
    pub policies: Vec<String>,
}

/// What becomes of the rights of absent policies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The policies, by UID, whose rights are revoked, and the rights.
    pub revoke: Vec<(String, BTreeSet<Arc<AppliedBinding>>)>,
    /// What waits.
    pub held_back: Option<HeldBack>,
}

/// What is revoked of policies that do not exist any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// The policies, by UID, and their rights.
    policies: Vec<(String, BTreeSet<Arc<AppliedBinding>>)>,
    /// What is removed from the broker.
    pub remove: Bindings,
}

impl Revocation {
    /// Of the rights of these policies, by UID, those are removed that nobody needs.
    #[must_use]
    pub fn new(
        policies: Vec<(String, BTreeSet<Arc<AppliedBinding>>)>,
        is_unneeded: impl Fn(&AppliedBinding) -> bool,
    ) -> Self {
        let rights = policies.iter().flat_map(|(_, rights)| rights).filter(|binding| is_unneeded(binding));
        let remove = rights.map(|binding| AppliedBinding::clone(binding)).collect();
        Self { policies, remove }
    }

    /// How many policies.
    #[must_use]
    pub fn policies(&self) -> usize {
        self.policies.len()
    }

    /// Drops the records of the policies. What could not be removed stays recorded, and is tried again.
    pub fn settle(self, failures: &Failures, records: &mut Records) {
        for (policy, rights) in self.policies {
            if !rights.iter().any(|binding| failures.contains_key(&**binding)) {
                records.forget(&policy);
            }
        }
    }
}

/// The policies with a record that do not exist, by UID, and since when that is known.
#[derive(Debug, Default)]
pub struct Absence(HashMap<String, Instant>);

impl Absence {
    /// Decides about the policies that do not exist now, by UID and name. Rights are revoked after a policy was absent for
    /// `absent_for`; `word` is that of the platform.
    pub fn decide(
        &mut self,
        records: &Records,
        exists: impl Fn(&str, &str) -> bool,
        (absent_for, word): (Duration, AbsentPolicies),
        now: Instant,
    ) -> Decision {
        let is_absent = |(policy, record): &(&str, &Record)| !exists(policy, &record.policy);
        let absent: HashMap<&str, &Record> = records.iter().filter(is_absent).collect();
        self.0.retain(|policy, _| absent.contains_key(policy.as_str()));
        for policy in absent.keys() {
            self.0.entry((*policy).to_owned()).or_insert(now);
        }
        let is_ripe = |policy: &str| self.0.get(policy).is_some_and(|since| now.duration_since(*since) >= absent_for);
        let ripe = absent.iter().filter(|(policy, _)| is_ripe(policy)).map(|(policy, record)| (*policy, *record));
        decide(ripe.collect(), records, absent.len(), word)
    }
}

/// Decides about policies that have been absent for long enough. `absent` is how many policies with a record are absent at all.
fn decide(ripe: Vec<(&str, &Record)>, records: &Records, absent: usize, word: AbsentPolicies) -> Decision {
    let rights: BTreeSet<&Arc<AppliedBinding>> = ripe.iter().flat_map(|(_, record)| &record.created).collect();
    let limit = BY_ITSELF.0.max(records.count() * BY_ITSELF.1 / 100);
    let somebody_is_left = absent < records.iter().count();
    let may_revoke = match word {
        AbsentPolicies::RevokeFew => rights.is_empty() || (somebody_is_left && rights.len() <= limit),
        AbsentPolicies::RevokeAll => true,
        AbsentPolicies::Keep => false,
    };
    if may_revoke {
        let revoke = ripe.into_iter().map(|(policy, record)| (policy.to_owned(), record.created.clone())).collect();
        return Decision { revoke, held_back: None };
    }
    let mut policies: Vec<String> = ripe.iter().map(|(_, record)| record.policy.clone()).collect();
    policies.sort_unstable();
    policies.truncate(MAX_LISTED);
    let held_back = (!rights.is_empty()).then_some(HeldBack { bindings: rights.len(), policies });
    Decision { revoke: Vec::new(), held_back }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::records::Stored;
    use crate::brokers::topic;

    /// Records of this many policies with one right each.
    fn records(policies: usize) -> Records {
        let mut records = Records::new(Stored::default());
        for number in 0..policies {
            let record = Record {
                policy: format!("shop/policy-{number}"),
                created: [Arc::new(topic(&format!("topic-{number}")))].into(),
                found: BTreeSet::new(),
            };
            records.set(&format!("{number}"), record, false);
        }
        records
    }

    fn decided(all: usize, absent: usize, word: AbsentPolicies) -> (usize, usize) {
        let records = records(all);
        let ripe: Vec<_> = records.iter().take(absent).collect();
        let decision = decide(ripe, &records, absent, word);
        (decision.revoke.len(), decision.held_back.map_or(0, |held_back| held_back.bindings))
    }

    #[test]
    fn a_restored_store_does_not_revoke_everything() {
        use AbsentPolicies::{Keep, RevokeAll, RevokeFew};
        assert_eq!(decided(20, 10, RevokeFew), (10, 0), "a few");
        assert_eq!(decided(20, 11, RevokeFew), (0, 11), "more than a fifth");
        assert_eq!(decided(100, 20, RevokeFew), (20, 0));
        assert_eq!(decided(1, 1, RevokeFew), (0, 1), "the only policy is not a few");
        assert_eq!(decided(20, 20, RevokeAll), (20, 0));
        assert_eq!(decided(20, 1, Keep), (0, 1));
        assert_eq!(decided(20, 0, Keep), (0, 0));
    }

    #[test]
    fn only_an_absence_that_lasts_without_a_break_counts() {
        let (records, start) = (records(20), Instant::now());
        let (mut absence, lasts) = (Absence::default(), (Duration::from_secs(60), AbsentPolicies::RevokeFew));
        let mut revoked = |is_there: bool, after: u64| {
            let exists = |policy: &str, name: &str| is_there || (policy, name) != ("3", "shop/policy-3");
            let decision = absence.decide(&records, exists, lasts, start + Duration::from_secs(after));
            decision.revoke.into_iter().map(|(policy, _)| policy).collect::<Vec<_>>()
        };
        assert!(revoked(false, 0).is_empty() && revoked(false, 59).is_empty());
        assert!(revoked(true, 60).is_empty(), "it was there in between");
        assert!(revoked(false, 61).is_empty() && revoked(false, 120).is_empty());
        assert_eq!(revoked(false, 121), ["3"]);
    }
}

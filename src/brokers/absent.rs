//! Decides what becomes of the rights of policies that do not exist any more: their finalizer was removed, or the store of the
//! API server was restored from a time before them. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::MAX_LISTED;
use super::records::{Record, Records};
pub use crate::api::AbsentPolicies;
use crate::api::AppliedBinding;

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

/// Decides about policies that have been absent for long enough. `absent` is how many policies with a record are absent at all.
pub fn decide(ripe: Vec<(&str, &Record)>, records: &Records, absent: usize, word: AbsentPolicies) -> Decision {
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
    use crate::api::{BindingOperation, BindingPattern, BindingResource};
    use crate::brokers::records::Stored;

    /// Records of this many policies with one right each.
    fn records(policies: usize) -> Records {
        let mut records = Records::new(Stored::default());
        for number in 0..policies {
            let binding = AppliedBinding {
                principal: "User:CN=orders,OU=shop,O=demo".into(),
                operation: BindingOperation::Write,
                resource: BindingResource::Topic,
                pattern: BindingPattern::Literal,
                name: format!("topic-{number}"),
            };
            let record = Record {
                policy: format!("shop/policy-{number}"),
                created: [Arc::new(binding)].into(),
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
}

//! What the operator knows of the ACLs of one broker, and what it decides from that. Pure. What is recorded about the broker is
//! beside it: those who use the session read the records too.

use std::time::{Duration, Instant};

use super::absent::{Absence, AbsentPolicies, HeldBack, Revocation};
use super::decide::{Batch, Demand, Limits, decide};
use super::ledger::{BrokerState, DriftTracker, Ledger};
use super::records::Records;
use super::state::{ConnectionState, State};
use super::{Failures, Holdings};
use crate::domain::grants::Bindings;

/// What policies claim, what the broker has, and the difference.
pub struct Inventory {
    ledger: Ledger,
    broker: BrokerState,
    drift: DriftTracker,
    absence: Absence,
    held_back: Option<HeldBack>,
}

impl Inventory {
    /// What the records say. What the broker has is not known before the first comparison.
    #[must_use]
    pub fn new(records: &Records) -> Self {
        Self {
            ledger: Ledger::new(records),
            broker: BrokerState::default(),
            drift: DriftTracker::default(),
            absence: Absence::default(),
            held_back: None,
        }
    }

    /// Decides about a batch of demands.
    pub fn decide(&mut self, demands: &[Demand], records: &mut Records, limits: Limits) -> Batch {
        decide(demands, &mut self.ledger, records, &self.broker, limits)
    }

    /// Drops what was recorded for a deleted policy, by its UID. Returns whether it claimed anything.
    pub fn forget(&mut self, policy: &str, records: &mut Records) -> bool {
        records.forget(policy);
        self.ledger.remove(policy)
    }

    /// Notes that bindings were created, except those that were refused.
    pub fn note_added(&mut self, added: &Bindings, refused: &Failures) {
        for binding in added.iter().filter(|binding| !refused.contains_key(*binding)) {
            self.broker.insert(self.ledger.share(binding));
        }
    }

    /// Notes that bindings were deleted, except those that were refused.
    pub fn note_removed(&mut self, removed: &Bindings, refused: &Failures) {
        for binding in removed.iter().filter(|binding| !refused.contains_key(*binding)) {
            self.broker.remove(binding);
        }
    }

    /// Compares all ACLs of a cluster with the claims.
    pub fn compare(&mut self, cluster: &str, listed: Holdings, records: &mut Records) {
        if records.set_cluster(cluster) {
            // Its policies are asked again.
            self.ledger = Ledger::new(records);
        }
        let listed = BrokerState::new(listed, &self.ledger);
        let before = std::mem::replace(&mut self.broker, listed);
        self.drift.add_missing(&self.broker.missing(&self.ledger), &before);
    }

    /// The bindings that the broker lacks and that policies ask for. It is recorded that they are made again.
    pub fn make_again(&self, records: &mut Records) -> Bindings {
        let missing = self.broker.missing(&self.ledger).into_iter();
        let asked: Bindings = missing.filter(|binding| self.ledger.is_asked_for(binding)).collect();
        records.note_created(self.ledger.askers(&asked))
    }

    /// Decides what becomes of the rights of policies that do not exist now, by UID and name, and drops the claims of those whose
    /// rights are revoked. Rights are revoked after a policy was absent for `absent_for`; `word` is that of the platform.
    pub fn revoke_absent(
        &mut self,
        records: &mut Records,
        exists: impl Fn(&str, &str) -> bool,
        lasts: (Duration, AbsentPolicies),
        now: Instant,
    ) -> Revocation {
        records.retain_created(|binding| self.broker.contains(binding));
        let decision = self.absence.decide(records, exists, lasts, now);
        self.held_back = decision.held_back;
        for (policy, _) in &decision.revoke {
            self.ledger.remove(policy);
        }
        Revocation::new(decision.revoke, |binding| self.broker.contains(binding) && !self.ledger.needs(binding))
    }

    /// Drops the drift that is repaired, or that no policy cares about any more.
    pub fn resolve_drift(&mut self) {
        self.drift.remove_resolved(&self.ledger, &self.broker);
    }

    /// What the session shows of itself.
    #[must_use]
    pub fn state(&self, connection: ConnectionState) -> State {
        State {
            connection,
            applied: self.broker.applied(&self.ledger),
            unmanaged: self.broker.unmanaged(&self.ledger),
            missing: self.drift.lost(),
            drift_found: self.drift.found,
            drift_repaired: self.drift.repaired,
            groups_released: self.ledger.groups_released(),
            held_back: self.held_back.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::decide::DemandMode;
    use super::super::records::Stored;
    use super::super::topic;
    use super::*;

    const FEW: (Duration, AbsentPolicies) = (Duration::ZERO, AbsentPolicies::RevokeAll);

    fn topics(names: &[&str]) -> Bindings {
        names.iter().map(|name| topic(name)).collect()
    }

    fn listed(names: &[&str]) -> Holdings {
        Holdings { bindings: topics(names), foreign: Vec::new() }
    }

    /// Lets policies ask for topics on a broker that has none, and notes that all were created.
    fn applied(policies: &[(&str, &[&str])]) -> (Inventory, Records) {
        let mut records = Records::new(Stored::default());
        let mut inventory = Inventory::new(&records);
        inventory.compare("one", Holdings::default(), &mut records);
        let demand = |(policy, names): &(&str, &[&str])| Demand {
            policy: (*policy).into(),
            name: format!("shop/{policy}"),
            created: Timestamp::MAX,
            grants: vec![topics(names)],
            mode: DemandMode::Enforce,
            imported: Bindings::new(),
        };
        let demands: Vec<Demand> = policies.iter().map(demand).collect();
        let batch = inventory.decide(&demands, &mut records, Limits { enforce: true, per_namespace: 100 });
        inventory.note_added(&batch.add, &Failures::new());
        batch.settle(&demands, &Failures::new(), &mut records);
        (inventory, records)
    }

    #[test]
    fn only_what_a_policy_asks_for_is_made_again() {
        let (mut inventory, mut records) = applied(&[("a", &["t", "u"])]);
        inventory.compare("one", listed(&["u", "by-hand"]), &mut records);
        assert_eq!(inventory.make_again(&mut records), topics(&["t"]));
        let state = inventory.state(ConnectionState::Connecting);
        assert_eq!((state.applied, state.missing.count, state.unmanaged.count), (1, 1, 1));
        let mut after_a_restart = Inventory::new(&records);
        after_a_restart.compare("one", listed(&["u"]), &mut records);
        assert!(after_a_restart.make_again(&mut records).is_empty(), "a record is no reason to add anything");
    }

    #[test]
    fn what_was_made_again_is_not_missing_any_more() {
        let (mut inventory, mut records) = applied(&[("a", &["t", "u"])]);
        inventory.compare("one", listed(&[]), &mut records);
        let again = inventory.make_again(&mut records);
        let refused: Failures = [(topic("u"), "refused".to_owned())].into();
        inventory.note_added(&again, &refused);
        inventory.resolve_drift();
        let state = inventory.state(ConnectionState::Connecting);
        assert_eq!((state.drift_found, state.drift_repaired), (2, 1));
        assert_eq!(state.missing.first, [topic("u").to_string()]);
    }

    #[test]
    fn rights_of_an_absent_policy_go_unless_another_one_needs_them() {
        let (mut inventory, mut records) = applied(&[("a", &["t", "u"]), ("b", &["u"])]);
        let only_b = |policy: &str, _: &str| policy == "b";
        let revocation = inventory.revoke_absent(&mut records, only_b, FEW, Instant::now());
        assert_eq!(revocation.remove, topics(&["t"]));
        inventory.note_removed(&revocation.remove, &Failures::new());
        revocation.settle(&Failures::new(), &mut records);
        assert!(records.get("a").is_none() && records.get("b").is_some());
        assert_eq!(inventory.state(ConnectionState::Connecting).applied, 1);
    }

    #[test]
    fn rights_that_could_not_be_revoked_stay_recorded() {
        let (mut inventory, mut records) = applied(&[("a", &["t"]), ("b", &["u"])]);
        let revocation = inventory.revoke_absent(&mut records, |policy, _| policy == "b", FEW, Instant::now());
        let refused: Failures = [(topic("t"), "refused".to_owned())].into();
        inventory.note_removed(&revocation.remove, &refused);
        revocation.settle(&refused, &mut records);
        assert!(records.get("a").is_some());
        let again = inventory.revoke_absent(&mut records, |policy, _| policy == "b", FEW, Instant::now());
        assert_eq!(again.remove, topics(&["t"]), "tried again");
    }

    #[test]
    fn another_cluster_lacks_everything() {
        let (mut inventory, mut records) = applied(&[("a", &["t"])]);
        inventory.compare("two", listed(&["by-hand"]), &mut records);
        assert!(inventory.make_again(&mut records).is_empty(), "its policies are asked again");
        assert!(records.get("a").is_none());
    }
}

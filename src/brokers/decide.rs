//! Decides what becomes of the demands of policies: what is claimed, recorded, added and removed. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::Failures;
use super::ledger::{BrokerState, Ledger, consumer};
use super::records::{Record, Records, namespace};
use crate::api::AppliedBinding;
use crate::domain::grants::{Bindings, Difference};

/// The bindings that a policy wants on a broker.
#[derive(Clone, Debug)]
pub struct Demand {
    /// UID of the policy.
    pub policy: String,
    /// The policy as `namespace/name`.
    pub name: String,
    /// When the policy was created.
    pub created: Timestamp,
    /// The bindings of each grant. A grant is applied as a whole.
    pub grants: Vec<Bindings>,
    /// Whether to change the broker, or only to report what would change.
    pub mode: DemandMode,
    /// Bindings that its status calls applied and that it still asks for. They count as made by the operator when the policy
    /// is older than the records of the operator, and only once.
    pub imported: Bindings,
}

/// Whether a demand changes the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DemandMode {
    /// The broker is to have the wanted bindings, and no other recorded ones.
    Enforce,
    /// Nothing is added. Of the recorded bindings these may stay; the others were taken back by the platform.
    Observe {
        /// What may stay.
        keep: Bindings,
    },
}

/// The outcome of a demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The bindings that were created and deleted, or would be.
    pub difference: Difference,
    /// The bindings that the broker refused to change.
    pub failures: Failures,
    /// The grants, by number, that read as a consumer group of another namespace, and this namespace.
    pub claimed: BTreeMap<usize, String>,
    /// The grants, by number, with which the namespace of the policy would have more bindings than it may.
    pub exceeding: BTreeSet<usize>,
    /// What is recorded for the policy now.
    pub recorded: Bindings,
}

/// Within which limits demands are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// False when the whole connection only observes.
    pub enforce: bool,
    /// How many bindings the policies of one namespace may have, counted once for each policy.
    pub per_namespace: usize,
}

/// What was decided about one demand.
#[derive(Debug, Default)]
pub struct Decision {
    /// The bindings of all grants that are not in the way of another namespace.
    wanted: Bindings,
    /// What the policy holds on to.
    claim: Bindings,
    /// What is changed on the broker, which is less than the difference in mode `Observe`.
    change: Difference,
    difference: Difference,
    claimed: BTreeMap<usize, String>,
    exceeding: BTreeSet<usize>,
}

/// What was decided about a batch of demands, in their order.
#[derive(Debug, Default)]
pub struct Batch {
    /// What was decided about each.
    decisions: Vec<Decision>,
    /// What is to be added.
    pub add: Bindings,
    /// What is to be removed afterwards.
    pub remove: Bindings,
    /// Whether claims changed.
    pub changed: bool,
}

/// Decides about a batch, and notes its claims and the records that must be stored before the broker is asked.
pub fn decide(
    demands: &[Demand],
    ledger: &mut Ledger,
    records: &mut Records,
    broker: &BrokerState,
    Limits { enforce, per_namespace }: Limits,
) -> Batch {
    let mut batch = Batch::default();
    let mut added: HashMap<&str, usize> = HashMap::new();
    // All claims are updated before any removal is considered: two policies that stop claiming a binding in one batch must not
    // keep it for each other.
    for demand in demands {
        import(demand, ledger, records, broker);
        let recorded = recorded(records, &demand.policy);
        let namespace = namespace(&demand.name);
        let added = added.entry(namespace).or_default();
        let held_by_others = records.held(namespace).saturating_sub(recorded.len()) + *added;
        let room = per_namespace.saturating_sub(held_by_others);
        let Arbitration { wanted, claimed, exceeding } = arbitrate(demand, ledger, &recorded, room);
        let asked = enforce && demand.mode == DemandMode::Enforce;
        if asked {
            *added += wanted.difference(&recorded).count();
        }
        let claim = match &demand.mode {
            _ if !enforce => recorded,
            DemandMode::Enforce => wanted.clone(),
            DemandMode::Observe { keep } => recorded.into_iter().filter(|binding| keep.contains(binding)).collect(),
        };
        batch.changed |= ledger.set(&demand.policy, &claim, asked);
        batch.decisions.push(Decision { wanted, claim, claimed, exceeding, ..Decision::default() });
    }
    for (demand, decision) in demands.iter().zip(&mut batch.decisions) {
        let created = records.get(&demand.policy).map(|record| record.created.clone()).unwrap_or_default();
        let surplus = |kept: &Bindings| -> Bindings {
            let surplus = created.iter().filter(|binding| !kept.contains(&***binding) && broker.contains(binding));
            let unneeded = surplus.filter(|binding| !ledger.needs_besides(binding, &demand.policy));
            unneeded.map(|binding| AppliedBinding::clone(binding)).collect()
        };
        let add: Bindings = decision.wanted.iter().filter(|binding| !broker.contains(binding)).cloned().collect();
        decision.change = match &demand.mode {
            _ if !enforce => Difference::default(),
            DemandMode::Enforce => Difference { add: add.clone(), remove: surplus(&decision.claim) },
            DemandMode::Observe { .. } => Difference { add: Bindings::new(), remove: surplus(&decision.claim) },
        };
        decision.difference = Difference { add, remove: surplus(&decision.wanted) };
        if enforce && demand.mode == DemandMode::Enforce {
            record_ahead(demand, decision, ledger, records);
        }
        batch.add.extend(decision.change.add.iter().cloned());
        batch.remove.extend(decision.change.remove.iter().cloned());
    }
    batch.changed |= !batch.add.is_empty() || !batch.remove.is_empty();
    batch
}

impl Batch {
    /// Notes what the broker answered, and returns the outcome of each demand.
    pub fn settle(self, demands: &[Demand], failures: &Failures, records: &mut Records) -> Vec<Outcome> {
        let outcomes = demands.iter().zip(self.decisions).map(|(demand, decision)| {
            let touched = decision.change.add.iter().chain(&decision.change.remove);
            let failures: Failures = touched.filter_map(|it| Some((it.clone(), failures.get(it)?.clone()))).collect();
            if let Some(record) = records.get(&demand.policy) {
                let mut record = record.clone();
                // What could not be removed stays recorded, and what could not be added does not.
                record.created.retain(|it| decision.claim.contains(&**it) != failures.contains_key(&**it));
                record.found.retain(|it| decision.claim.contains(&**it));
                let keep = records.is_older(demand.created);
                records.set(&demand.policy, record, keep);
            }
            let recorded = recorded(records, &demand.policy);
            let Decision { difference, claimed, exceeding, .. } = decision;
            Outcome { difference, failures, claimed, exceeding, recorded }
        });
        outcomes.collect()
    }
}

fn recorded(records: &Records, policy: &str) -> Bindings {
    let bindings = records.get(policy).into_iter().flat_map(Record::bindings);
    bindings.map(|binding| AppliedBinding::clone(binding)).collect()
}

/// Takes over what a policy applied before there were records.
fn import(demand: &Demand, ledger: &mut Ledger, records: &mut Records, broker: &BrokerState) {
    if !records.may_import(&demand.policy, demand.created) {
        return;
    }
    let created = demand.imported.iter().filter_map(|binding| broker.get(binding)).collect();
    let record = Record { policy: demand.name.clone(), created, ..Record::default() };
    records.set(&demand.policy, record, true);
    // A group that two namespaces shared already goes on.
    ledger.set(&demand.policy, &recorded(records, &demand.policy), false);
}

/// What a policy wants, and the grants that it cannot have.
#[derive(Default)]
struct Arbitration {
    wanted: Bindings,
    claimed: BTreeMap<usize, String>,
    exceeding: BTreeSet<usize>,
}

/// Leaves out the grants that read as a group of another namespace, and those with which the policy would have more bindings than
/// there is `room` for. What is recorded already and still asked for has its room first.
fn arbitrate(demand: &Demand, ledger: &Ledger, recorded: &Bindings, room: usize) -> Arbitration {
    let mut own: BTreeMap<&str, &str> = BTreeMap::new();
    let kept: BTreeSet<&AppliedBinding> = demand.grants.iter().flatten().filter(|it| recorded.contains(*it)).collect();
    let mut room = room.saturating_sub(kept.len());
    let Arbitration { mut wanted, mut claimed, mut exceeding } = Arbitration::default();
    for (number, grant) in demand.grants.iter().enumerate() {
        let group = grant.iter().find_map(consumer);
        // While a namespace has the group itself, no other one is in its way.
        let shared = group.filter(|(group, namespace)| !ledger.consumes(group, namespace));
        let other = shared.and_then(|(group, namespace)| {
            let holder = ledger.consumer(group).or_else(|| own.get(group).copied());
            holder.filter(|holder| *holder != namespace)
        });
        let new = grant.iter().filter(|it| !recorded.contains(*it) && !wanted.contains(*it)).count();
        match other {
            Some(other) => _ = claimed.insert(number, other.to_owned()),
            None if new > room => _ = exceeding.insert(number),
            None => {
                room -= new;
                wanted.extend(grant.iter().cloned());
                if let Some((group, namespace)) = group {
                    own.entry(group).or_insert(namespace);
                }
            }
        }
    }
    Arbitration { wanted, claimed, exceeding }
}

/// Records what is about to be made, and what the broker has already: as made, when the operator made it for another policy,
/// otherwise as found.
fn record_ahead(demand: &Demand, decision: &Decision, ledger: &Ledger, records: &mut Records) {
    let mut record = records.get(&demand.policy).cloned().unwrap_or_default();
    record.policy.clone_from(&demand.name);
    for binding in &decision.wanted {
        let shared = ledger.share(binding);
        if decision.change.add.contains(binding) || records.is_created(binding) {
            record.found.remove(&shared);
            record.created.insert(shared);
        } else {
            record.found.insert(shared);
        }
    }
    let keep = records.is_older(demand.created);
    records.set(&demand.policy, record, keep);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BindingOperation, BindingPattern, BindingResource};
    use crate::brokers::records::Stored;
    use crate::brokers::{Holdings, topic};

    fn group(namespace: &str, name: &str) -> AppliedBinding {
        AppliedBinding {
            principal: format!("User:CN=orders,OU={namespace},O=demo"),
            operation: BindingOperation::Read,
            resource: BindingResource::Group,
            pattern: BindingPattern::Literal,
            name: name.into(),
        }
    }

    /// A broker, and what the operator knows of it. Policies are younger than the records.
    struct World {
        ledger: Ledger,
        records: Records,
        broker: Bindings,
        enforce: bool,
    }

    impl World {
        fn new(broker: &[AppliedBinding]) -> Self {
            let (ledger, records) = (Ledger::default(), Records::new(Stored::default()));
            Self { ledger, records, broker: broker.iter().cloned().collect(), enforce: true }
        }

        /// Carries demands out as one batch.
        fn carry_out(&mut self, demands: &[Demand]) -> Vec<Outcome> {
            let listed = Holdings { bindings: self.broker.clone(), foreign: Vec::new() };
            let broker = BrokerState::new(listed, &self.ledger);
            let limits = self.limits();
            let batch = decide(demands, &mut self.ledger, &mut self.records, &broker, limits);
            let recorded_ahead = batch.add.iter().all(|binding| self.records.is_created(binding));
            assert!(recorded_ahead, "recorded before the broker is asked");
            self.broker.extend(batch.add.iter().cloned());
            self.broker.retain(|binding| !batch.remove.contains(binding));
            batch.settle(demands, &Failures::new(), &mut self.records)
        }

        fn limits(&self) -> Limits {
            Limits { enforce: self.enforce, per_namespace: 6 }
        }

        /// What a new process knows.
        fn restart(&mut self) {
            self.ledger = Ledger::new(&self.records);
        }
    }

    fn demand(policy: &str, grants: &[&[AppliedBinding]]) -> Demand {
        Demand {
            policy: policy.into(),
            name: format!("shop/{policy}"),
            created: Timestamp::MAX,
            grants: grants.iter().map(|grant| grant.iter().cloned().collect()).collect(),
            mode: DemandMode::Enforce,
            imported: Bindings::new(),
        }
    }

    fn observe(policy: &str, grants: &[&[AppliedBinding]], keep: &[AppliedBinding]) -> Demand {
        Demand { mode: DemandMode::Observe { keep: keep.iter().cloned().collect() }, ..demand(policy, grants) }
    }

    #[test]
    fn what_the_broker_held_before_is_never_removed() {
        let mut world = World::new(&[topic("by-hand")]);
        let outcome = &world.carry_out(&[demand("a", &[&[topic("by-hand"), topic("new")]])])[0];
        assert_eq!(outcome.recorded, [topic("by-hand"), topic("new")].into());
        world.restart();
        world.carry_out(&[demand("a", &[])]);
        assert_eq!(world.broker, [topic("by-hand")].into());
        assert_eq!(world.records.count(), 0);
    }

    #[test]
    fn a_binding_stays_until_its_last_policy_is_gone() {
        let mut world = World::new(&[]);
        world.carry_out(&[demand("a", &[&[topic("t")]]), demand("b", &[&[topic("t")]])]);
        world.restart();
        world.carry_out(&[demand("a", &[])]);
        assert_eq!(world.broker, [topic("t")].into(), "the other policy has not been heard yet, and is recorded");
        world.carry_out(&[demand("b", &[])]);
        assert_eq!(world.broker, Bindings::new());
        let both = [demand("a", &[&[topic("t")]]), demand("b", &[&[topic("t")]])];
        world.carry_out(&both);
        world.carry_out(&[demand("a", &[]), demand("b", &[])]);
        assert_eq!(
            world.broker,
            Bindings::new(),
            "two policies that let go in one batch do not keep it for each other"
        );
    }

    #[test]
    fn a_policy_that_observes_adds_nothing_and_keeps_only_what_may_stay() {
        let mut world = World::new(&[]);
        world.carry_out(&[demand("a", &[&[topic("kept"), topic("taken-back")]])]);
        let outcome = &world.carry_out(&[observe("a", &[&[topic("new")]], &[topic("kept")])])[0];
        assert_eq!(world.broker, [topic("kept")].into());
        assert_eq!(outcome.difference.add, [topic("new")].into());
        assert_eq!(outcome.recorded, [topic("kept")].into());
        let forged = [topic("kept"), topic("of-others")];
        world.broker.insert(topic("of-others"));
        world.carry_out(&[observe("a", &[], &forged)]);
        world.carry_out(&[demand("a", &[])]);
        assert_eq!(world.broker, [topic("of-others")].into(), "what was never recorded is not touched");
    }

    #[test]
    fn a_connection_that_observes_changes_nothing() {
        let mut world = World::new(&[]);
        world.carry_out(&[demand("a", &[&[topic("t")]])]);
        world.enforce = false;
        let outcome = &world.carry_out(&[demand("a", &[&[topic("u")]])])[0];
        assert_eq!(world.broker, [topic("t")].into());
        let planned = Difference { add: [topic("u")].into(), remove: [topic("t")].into() };
        assert_eq!((&outcome.difference, &outcome.recorded), (&planned, &[topic("t")].into()));
    }

    #[test]
    fn a_group_stays_with_the_namespace_that_has_it() {
        let mut world = World::new(&[]);
        world.carry_out(&[demand("victim", &[&[group("shop", "settle")]])]);
        world.restart();
        let grants: [&[AppliedBinding]; 2] = [&[group("evil", "settle"), topic("t")], &[topic("u")]];
        let outcome = &world.carry_out(&[demand("evil", &grants)])[0];
        assert_eq!(outcome.claimed, [(0, "shop".to_owned())].into());
        assert_eq!(outcome.recorded, [topic("u")].into(), "the grant is refused as a whole, the others are not");
        world.carry_out(&[demand("victim", &[])]);
        let outcome = &world.carry_out(&[demand("evil", &grants)])[0];
        assert!(outcome.claimed.is_empty());
        let two: [&[AppliedBinding]; 2] = [&[group("a", "one")], &[group("b", "one")]];
        assert_eq!(world.carry_out(&[demand("two", &two)])[0].claimed, [(1, "a".to_owned())].into());
    }

    #[test]
    fn a_namespace_gets_no_more_bindings_than_it_may_have() {
        let mut world = World::new(&[]);
        let of = |policy: &str, from: u32, to: u32| {
            let topics: Vec<AppliedBinding> = (from..to).map(|number| topic(&number.to_string())).collect();
            topics.into_iter().map(|topic| vec![topic]).fold(demand(policy, &[]), |mut demand, grant| {
                demand.grants.push(grant.into_iter().collect());
                demand
            })
        };
        // In one batch and over several ones.
        let outcomes = world.carry_out(&[of("a", 0, 4), of("b", 10, 14)]);
        assert!(outcomes[0].exceeding.is_empty());
        assert_eq!((&outcomes[1].exceeding, outcomes[1].recorded.len()), (&[2, 3].into(), 2));
        assert_eq!(world.carry_out(&[of("c", 20, 21)])[0].exceeding, [0].into());
        let other = Demand { name: "victim/d".into(), ..of("d", 30, 36) };
        assert!(world.carry_out(&[other])[0].exceeding.is_empty(), "a namespace has a share of its own");
        // What is recorded goes on, and what is let go makes room.
        world.restart();
        assert!(world.carry_out(&[of("a", 0, 4)])[0].exceeding.is_empty());
        assert!(world.carry_out(&[of("a", 50, 54)])[0].exceeding.is_empty(), "others in the place of its own");
        assert_eq!(world.carry_out(&[of("a", 50, 55)])[0].exceeding, [4].into());
        world.carry_out(&[of("a", 50, 52)]);
        assert!(world.carry_out(&[of("b", 10, 14)])[0].exceeding.is_empty());
    }

    #[test]
    fn what_was_applied_before_there_were_records_is_imported_once() {
        let mut world = World::new(&[topic("ours"), topic("by-hand"), group("a", "g"), group("b", "g")]);
        world.records = Records::new(Stored { imports_until: Timestamp::UNIX_EPOCH, ..Stored::default() });
        let old = |grants: &[&[AppliedBinding]], imported: &[AppliedBinding]| Demand {
            created: Timestamp::UNIX_EPOCH,
            imported: imported.iter().cloned().collect(),
            ..demand("old", grants)
        };
        let shared = [group("a", "g"), group("b", "g")];
        let grants: [&[AppliedBinding]; 3] = [&[topic("ours")], &shared[..1], &shared[1..]];
        let outcome = &world.carry_out(&[old(&grants, &[topic("ours"), shared[0].clone(), shared[1].clone()])])[0];
        assert!(outcome.claimed.is_empty(), "what two namespaces share already goes on");
        world.carry_out(&[old(&[&[topic("by-hand")]], &[topic("by-hand")])]);
        assert_eq!(world.broker, [topic("by-hand")].into());
        world.carry_out(&[old(&[], &[])]);
        world.carry_out(&[old(&[&[topic("by-hand")]], &[topic("by-hand")])]);
        world.carry_out(&[old(&[], &[])]);
        assert_eq!(world.broker, [topic("by-hand")].into(), "a status that is forged later is not believed");
    }

    #[test]
    fn what_failed_is_recorded_as_it_is() {
        let mut world = World::new(&[]);
        let fail = |world: &mut World, demand: Demand, failed: AppliedBinding| {
            let listed = Holdings { bindings: world.broker.clone(), foreign: Vec::new() };
            let broker = BrokerState::new(listed, &world.ledger);
            let demands = [demand];
            let limits = world.limits();
            let batch = decide(&demands, &mut world.ledger, &mut world.records, &broker, limits);
            batch.settle(&demands, &[(failed, "refused".to_owned())].into(), &mut world.records).remove(0)
        };
        let outcome = fail(&mut world, demand("a", &[&[topic("t"), topic("u")]]), topic("t"));
        assert_eq!((outcome.failures.len(), outcome.recorded), (1, [topic("u")].into()));
        world.broker.insert(topic("u"));
        let outcome = fail(&mut world, demand("a", &[]), topic("u"));
        assert_eq!(outcome.recorded, [topic("u")].into(), "what could not be removed is tried again");
    }
}

//! What the operator recorded about a broker: which ACLs it made, for which policy. Pure.
//!
//! A record permits a removal, and never an addition. It is written before the broker is asked, so a crash in between leaves a
//! record without an ACL, never an ACL without a record. What the broker held before is recorded as found, and is never removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BrokerFailure;
use crate::api::AppliedBinding;
use crate::domain::grants::Bindings;

/// How large a shard becomes at most by itself, in bytes of JSON. A batch writes the shards of its policies as a whole.
const SHARD_SIZE: usize = 48 << 10;

/// What was recorded for one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The policy as `namespace/name`.
    pub policy: String,
    /// The ACLs that the operator made for it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub created: BTreeSet<Arc<AppliedBinding>>,
    /// The ACLs that it asks for and that the broker held before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub found: BTreeSet<Arc<AppliedBinding>>,
}

impl Record {
    /// All recorded bindings.
    pub fn bindings(&self) -> impl Iterator<Item = &Arc<AppliedBinding>> {
        self.created.iter().chain(&self.found)
    }

    fn is_empty(&self) -> bool {
        self.created.is_empty() && self.found.is_empty()
    }

    /// About how much JSON it takes, in bytes.
    fn size(&self) -> usize {
        let bindings = self.bindings().map(|binding| 100 + binding.principal.len() + binding.name.len());
        100 + self.policy.len() + bindings.sum::<usize>()
    }
}

/// The namespace in `namespace/name` of a policy.
pub(super) fn namespace(policy: &str) -> &str {
    policy.split_once('/').map_or(policy, |(namespace, _)| namespace)
}

/// A part of the records, which is stored as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    /// ID of the Kafka cluster that the records are about.
    #[serde(rename = "clusterID")]
    pub cluster: String,
    /// The records, by the UID of the policy.
    pub policies: BTreeMap<String, Record>,
}

/// What is stored about one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The shards, by number.
    pub shards: BTreeMap<u32, Shard>,
    /// Policies that were created until then may have applied ACLs before there were records; see `Demand::imported`.
    pub imports_until: Timestamp,
}

/// Where the records of one broker are stored.
pub trait RecordStore: Send + Sync + 'static {
    /// Reads all shards.
    fn load(&self) -> impl Future<Output = Result<Stored, BrokerFailure>> + Send;

    /// Writes a shard. Fails when somebody else has written it since it was read.
    fn save(&self, number: u32, shard: &Shard) -> impl Future<Output = Result<(), BrokerFailure>> + Send;
}

/// The records of one broker.
#[derive(Debug, Default)]
pub struct Records {
    stored: Stored,
    /// The cluster that the broker belongs to; empty until it was reached.
    cluster: String,
    /// In which shard the record of a policy about this cluster is.
    places: HashMap<String, u32>,
    sizes: BTreeMap<u32, usize>,
    /// For how many policies an ACL of this cluster was made.
    created: HashMap<Arc<AppliedBinding>, u32>,
    /// How many bindings the policies of each namespace have, counted once for each policy.
    held: HashMap<String, usize>,
    /// The shards that differ from what is stored.
    changed: BTreeSet<u32>,
}

impl Records {
    /// From what is stored.
    #[must_use]
    pub fn new(stored: Stored) -> Self {
        let cluster = stored.shards.values().next().map(|shard| shard.cluster.clone()).unwrap_or_default();
        let mut records = Self { stored, ..Self::default() };
        records.choose(cluster);
        records
    }

    /// Goes on with the records about a cluster. Those about another one stay stored. Returns whether it is another one.
    pub fn set_cluster(&mut self, cluster: &str) -> bool {
        let differs = self.cluster != cluster;
        if differs {
            self.choose(cluster.to_owned());
        }
        differs
    }

    fn choose(&mut self, cluster: String) {
        self.cluster = cluster;
        self.places.clear();
        self.sizes.clear();
        self.created.clear();
        self.held.clear();
        for (number, shard) in self.stored.shards.iter().filter(|(_, shard)| shard.cluster == self.cluster) {
            self.sizes.insert(*number, shard.policies.values().map(Record::size).sum());
            for (policy, record) in &shard.policies {
                self.places.insert(policy.clone(), *number);
                *self.held.entry(namespace(&record.policy).to_owned()).or_insert(0) += record.bindings().count();
                for binding in &record.created {
                    *self.created.entry(binding.clone()).or_insert(0) += 1;
                }
            }
        }
    }

    /// Whether a policy may have applied ACLs before there were records, and has none yet.
    #[must_use]
    pub fn may_import(&self, policy: &str, created: Timestamp) -> bool {
        created <= self.stored.imports_until && !self.places.contains_key(policy)
    }

    /// Whether a policy is older than the records.
    #[must_use]
    pub fn is_older(&self, created: Timestamp) -> bool {
        created <= self.stored.imports_until
    }

    /// The record of a policy.
    #[must_use]
    pub fn get(&self, policy: &str) -> Option<&Record> {
        self.stored.shards.get(self.places.get(policy)?)?.policies.get(policy)
    }

    /// Whether the operator made an ACL, for any policy.
    #[must_use]
    pub fn is_created(&self, binding: &AppliedBinding) -> bool {
        self.created.contains_key(binding)
    }

    /// How many bindings the policies of a namespace have, counted once for each policy.
    #[must_use]
    pub fn held(&self, namespace: &str) -> usize {
        self.held.get(namespace).copied().unwrap_or_default()
    }

    /// How many ACLs the operator made.
    #[must_use]
    pub fn count(&self) -> usize {
        self.created.len()
    }

    /// The policies with a record, and their records.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.places.keys().filter_map(|policy| Some((policy.as_str(), self.get(policy)?)))
    }

    /// Replaces the record of a policy. An empty one is dropped, unless it is to be kept as a sign that there was one.
    pub fn set(&mut self, policy: &str, record: Record, keep: bool) {
        let before = self.get(policy);
        if before == Some(&record) || (before.is_none() && record.is_empty() && !keep) {
            return;
        }
        let number = self.place(policy, &record);
        self.take(policy);
        if record.is_empty() && !keep {
            return;
        }
        for binding in &record.created {
            *self.created.entry(binding.clone()).or_insert(0) += 1;
        }
        *self.held.entry(namespace(&record.policy).to_owned()).or_insert(0) += record.bindings().count();
        *self.sizes.entry(number).or_insert(0) += record.size();
        self.places.insert(policy.to_owned(), number);
        let cluster = &self.cluster;
        let shard = self.stored.shards.entry(number);
        let shard = shard.or_insert_with(|| Shard { cluster: cluster.clone(), policies: BTreeMap::new() });
        shard.policies.insert(policy.to_owned(), record);
        self.changed.insert(number);
    }

    /// Drops everything that was recorded for a policy, about every cluster.
    pub fn forget(&mut self, policy: &str) {
        self.set(policy, Record::default(), false);
        for (number, shard) in &mut self.stored.shards {
            if shard.policies.remove(policy).is_some() {
                self.changed.insert(*number);
            }
        }
        self.places.remove(policy);
    }

    /// Notes that bindings are about to be made again for the policies that ask for them, and returns those that are
    /// recorded so. A policy without a record is not among them: its demand was not carried out yet.
    pub fn note_created<'a>(&mut self, askers: impl Iterator<Item = (&'a str, Vec<Arc<AppliedBinding>>)>) -> Bindings {
        let mut noted = Bindings::new();
        for (policy, bindings) in askers {
            let Some(mut record) = self.get(policy).cloned() else { continue };
            record.found.retain(|found| !bindings.contains(found));
            noted.extend(bindings.iter().map(|binding| AppliedBinding::clone(binding)));
            record.created.extend(bindings);
            self.set(policy, record, true);
        }
        noted
    }

    /// Drops what was made and does not exist any more.
    pub fn retain_created(&mut self, exists: impl Fn(&AppliedBinding) -> bool) {
        let gone: BTreeSet<Arc<AppliedBinding>> = self.created.keys().filter(|it| !exists(it)).cloned().collect();
        let holders: Vec<(String, Record)> = self
            .iter()
            .filter(|(_, record)| !record.created.is_disjoint(&gone))
            .map(|(policy, record)| (policy.to_owned(), record.clone()))
            .collect();
        for (policy, mut record) in holders {
            record.created.retain(|binding| !gone.contains(binding));
            // It stays as a sign that this policy had a record.
            self.set(&policy, record, true);
        }
    }

    /// What is recorded for a policy; as long as nothing was taken over of what it applied before there were records, what its
    /// `status` says.
    #[must_use]
    pub fn recorded(&self, policy: &str, created: Timestamp, status: &Bindings) -> Bindings {
        if self.may_import(policy, created) {
            return status.clone();
        }
        let bindings = self.get(policy).into_iter().flat_map(Record::bindings);
        bindings.map(|binding| AppliedBinding::clone(binding)).collect()
    }

    /// The policies with a record of rights, as `namespace/name`.
    #[must_use]
    pub fn policies(&self) -> Vec<String> {
        let with_rights = self.iter().filter(|(_, record)| record.bindings().next().is_some());
        let mut policies: Vec<String> = with_rights.map(|(_, record)| record.policy.clone()).collect();
        policies.sort_unstable();
        policies
    }

    /// Whether rights that a policy had before there were records are still in force: its record holds them, or its `status`
    /// does and nothing has been recorded yet.
    #[must_use]
    pub fn was_granted_before(&self, policy: &str, created: Timestamp, rights: &Bindings, status: &Bindings) -> bool {
        if !self.is_older(created) {
            return false;
        }
        if self.may_import(policy, created) {
            return rights.is_subset(status);
        }
        let record = self.get(policy);
        record.is_some_and(|record| rights.iter().all(|right| record.bindings().any(|recorded| **recorded == *right)))
    }

    /// A shard that differs from what is stored.
    #[must_use]
    pub fn unsaved(&self) -> Option<(u32, Shard)> {
        self.changed.iter().find_map(|number| Some((*number, self.stored.shards.get(number)?.clone())))
    }

    /// Notes that a shard is stored.
    pub fn saved(&mut self, number: u32) {
        self.changed.remove(&number);
    }

    /// Removes the record of a policy, and what is counted of it.
    fn take(&mut self, policy: &str) {
        let Some(number) = self.places.remove(policy) else { return };
        let shard = self.stored.shards.get_mut(&number);
        let Some(record) = shard.and_then(|shard| shard.policies.remove(policy)) else { return };
        record.created.iter().for_each(|binding| self.discount(binding));
        let namespace = namespace(&record.policy);
        if let Some(held) = self.held.get_mut(namespace) {
            *held = held.saturating_sub(record.bindings().count());
            if *held == 0 {
                self.held.remove(namespace);
            }
        }
        if let Some(size) = self.sizes.get_mut(&number) {
            *size = size.saturating_sub(record.size());
        }
        self.changed.insert(number);
    }

    fn discount(&mut self, binding: &AppliedBinding) {
        if let Some(count) = self.created.get_mut(binding) {
            *count -= 1;
            if *count == 0 {
                self.created.remove(binding);
            }
        }
    }

    /// The shard for a record: the one it is in, the fullest one with room for it, or a new one.
    fn place(&self, policy: &str, record: &Record) -> u32 {
        let has_room = |number: &u32| self.sizes.get(number).is_none_or(|size| size + record.size() <= SHARD_SIZE);
        let own = self.places.get(policy).copied().filter(|number| self.sizes.len() == 1 || has_room(number));
        let fullest = || {
            let with_room = self.sizes.iter().filter(|(number, _)| has_room(number));
            with_room.max_by_key(|(_, size)| **size).map(|(number, _)| *number)
        };
        let next = || self.stored.shards.last_key_value().map_or(0, |(number, _)| number + 1);
        own.or_else(fullest).unwrap_or_else(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::topic;

    fn binding(name: &str) -> Arc<AppliedBinding> {
        Arc::new(topic(name))
    }

    fn record(names: &[&str]) -> Record {
        let created = names.iter().map(|name| binding(name)).collect();
        Record { policy: "shop/orders".into(), created, found: BTreeSet::new() }
    }

    /// What is written, as another process reads it.
    fn stored(records: &mut Records) -> Stored {
        let mut stored = Stored::default();
        for (number, shard) in records.stored.shards.clone() {
            let json = serde_json::to_string(&shard).unwrap();
            stored.shards.insert(number, serde_json::from_str(&json).unwrap());
        }
        records.changed.clear();
        stored
    }

    #[test]
    fn records_survive_being_stored() {
        let mut records = Records::new(Stored::default());
        records.set_cluster("one");
        records.set("a", record(&["t", "u"]), false);
        records.set("b", record(&["t"]), false);
        let mut again = Records::new(stored(&mut records));
        assert_eq!(again.get("a"), Some(&record(&["t", "u"])));
        assert!(again.is_created(&binding("t")) && again.count() == 2);
        assert_eq!((again.held("shop"), again.held("billing")), (3, 0));
        again.set("a", Record::default(), false);
        assert_eq!(again.held("shop"), 1);
        assert!(again.is_created(&binding("t")), "the other policy has it still");
        assert_eq!(again.changed.len(), 1);
        again.forget("b");
        assert_eq!((again.count(), again.iter().count(), again.held("shop")), (0, 0, 0));
    }

    #[test]
    fn a_batch_touches_few_shards_of_bounded_size() {
        let mut records = Records::new(Stored::default());
        for number in 0..2_000 {
            records.set(&format!("uid-{number}"), record(&[&format!("topic-{number}")]), false);
        }
        let mut sizes = Vec::new();
        while let Some((number, shard)) = records.unsaved() {
            sizes.push(serde_json::to_string(&shard).unwrap().len());
            records.saved(number);
        }
        assert!(sizes.len() > 3 && sizes.iter().all(|size| *size < 2 * SHARD_SIZE), "{sizes:?}");
        records.changed.clear();
        for number in 0..100 {
            records.set(&format!("new-{number}"), record(&[&format!("new-{number}")]), false);
        }
        assert!(records.changed.len() <= 2, "a burst fills one shard after the other");
    }

    #[test]
    fn another_cluster_has_records_of_its_own() {
        let mut records = Records::new(Stored::default());
        records.set_cluster("one");
        records.set("a", record(&["t"]), false);
        assert!(records.set_cluster("two") && records.get("a").is_none() && records.count() == 0);
        records.set("a", record(&["u"]), false);
        assert!(records.set_cluster("one"));
        assert_eq!(records.get("a"), Some(&record(&["t"])));
        records.forget("a");
        records.set_cluster("two");
        assert_eq!(records.get("a"), None, "about every cluster");
    }
}

//! What is known of the Secrets and ConfigMaps that the operator writes, as the watch and the answers to its own writes tell it.
//! Pure: `now` is a parameter.
//!
//! Only metadata is kept. Facts about the content stand in annotations, and the field ownership that the API server keeps
//! shows whether anybody else wrote the content since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::ownership::untouched;
use super::status::version;
use super::{COMPONENT, FOR};
use crate::domain::contention::Contention;
use crate::domain::name::Name;

/// Facts about the content of an object that stand in its annotations.
pub trait Facts: Clone + Send + Sync + 'static {
    /// Which components are of this kind, as a label selector; empty for all.
    const COMPONENTS: &'static str;

    /// Reads the facts; `None` when they are incomplete, which counts as altered.
    fn read(annotations: &BTreeMap<String, String>) -> Option<Self>;

    /// The entries of `data` that an object of this component has.
    fn entries(component: &str) -> &'static [&'static str];
}

/// What is known of one written object.
#[derive(Clone, Debug)]
pub struct Record<F> {
    version: u64,
    /// UID of the object itself.
    pub uid: String,
    /// UID of the object that controls it.
    pub owner: String,
    /// Kind and name of the object that controls it, as `Kind/name`, or what [`FOR`] says.
    controller: Arc<str>,
    /// What it is for.
    pub component: String,
    /// What its content is, or who else changed it.
    pub facts: Result<F, String>,
}

/// Whose an object is that was changed or is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub namespace: Arc<str>,
    /// See [`Record`].
    pub controller: Arc<str>,
}

/// How long it is remembered that an object was deleted by somebody else; its owner is told at once.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What is known of all written objects of one kind.
pub(super) struct Known<F> {
    /// In the order of namespace and name, so that looking up what an identity owns does not scan the cluster.
    records: BTreeMap<Name, Arc<Record<F>>>,
    /// What was put back lately, and who had changed it.
    contentions: HashMap<Name, (Contention, String)>,
    /// What somebody else deleted, and when.
    lost: HashMap<Name, Instant>,
    /// UIDs of what the watch said is gone, and when: the answer to a write of ours may come later than that.
    gone: HashMap<String, Instant>,
    /// During a list: what was written since it began, which the list may not show.
    written: Option<HashSet<Name>>,
}

impl<F> Default for Known<F> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            contentions: HashMap::new(),
            lost: HashMap::new(),
            gone: HashMap::new(),
            written: None,
        }
    }
}

impl<F: Facts> Known<F> {
    pub(super) fn get(&self, name: &Name) -> Option<Arc<Record<F>>> {
        self.records.get(name).cloned()
    }

    pub(super) fn was_lost(&self, name: &Name) -> bool {
        self.lost.contains_key(name)
    }

    /// What was put back lately, and who had changed it.
    pub(super) fn contention(&self, name: &Name) -> Option<&(Contention, String)> {
        self.contentions.get(name)
    }

    pub(super) fn owned_by(&self, owner: &str) -> Vec<(Name, Arc<Record<F>>)> {
        let owned = self.records.iter().filter(|(_, record)| record.owner == owner);
        owned.map(|(name, record)| (name.clone(), record.clone())).collect()
    }

    /// The objects of a namespace whose names begin like this one.
    pub(super) fn with_prefix(&self, prefix: &Name, owner: &str) -> Vec<(Arc<str>, Arc<Record<F>>)> {
        self.records
            .range(prefix.clone()..)
            .take_while(|(found, _)| found.namespace == prefix.namespace && found.name.starts_with(&*prefix.name))
            .filter(|(_, record)| record.owner == owner)
            .map(|(found, record)| (found.name.clone(), record.clone()))
            .collect()
    }

    /// Notes that an object was put back after `who` had changed or deleted it.
    pub(super) fn repaired(&mut self, name: Name, who: &str, now: Instant) {
        self.contentions.retain(|_, (contention, _)| !contention.is_over(now));
        let contention = match self.contentions.get(&name) {
            Some((contention, _)) => contention.repaired(now),
            None => Contention::new(now),
        };
        self.contentions.insert(name, (contention, who.to_owned()));
    }

    /// A list begins.
    pub(super) fn begin_list(&mut self) {
        self.written = Some(HashSet::new());
    }

    /// Drops what the list did not show, and says whose it was.
    pub(super) fn conclude_list(&mut self, seen: &HashSet<Name>, now: Instant) -> Vec<Told> {
        let written = self.written.take().unwrap_or_default();
        let is_gone = |name: &Name| !seen.contains(name) && !written.contains(name);
        let gone: Vec<Name> = self.records.keys().filter(|name| is_gone(name)).cloned().collect();
        gone.into_iter()
            .filter_map(|name| {
                let record = self.records.remove(&name)?;
                self.lost.insert(name.clone(), now);
                Some(Told { namespace: name.namespace, controller: record.controller.clone() })
            })
            .collect()
    }

    /// Takes up the answer to a write of our own.
    pub(super) fn wrote(&mut self, metadata: &ObjectMeta) {
        self.note(metadata);
        if self.gone.contains_key(metadata.uid.as_deref().unwrap_or_default()) {
            return;
        }
        self.lost.remove(&key(metadata));
        if let Some(written) = self.written.as_mut() {
            written.insert(key(metadata));
        }
    }

    /// We have deleted an object.
    pub(super) fn remove(&mut self, name: &Name) {
        self.records.remove(name);
    }

    /// Takes up what an object is now. Says whose it is when that is news: the watch may still be behind our own write.
    pub(super) fn note(&mut self, metadata: &ObjectMeta) -> Option<Told> {
        let (name, fresh) = (key(metadata), record(metadata));
        let is_old = self.records.get(&name).is_some_and(|known| known.version >= fresh.version);
        if is_old || self.gone.contains_key(&fresh.uid) {
            return None;
        }
        let told = Told { namespace: name.namespace.clone(), controller: fresh.controller.clone() };
        self.records.insert(name, Arc::new(fresh));
        Some(told)
    }

    /// Forgets an object that is gone, and says whose it was.
    pub(super) fn forget(&mut self, metadata: &ObjectMeta, now: Instant) -> Told {
        let name = key(metadata);
        let gone = metadata.uid.clone().unwrap_or_default();
        self.gone.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        self.lost.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        if self.records.get(&name).is_some_and(|known| known.uid == gone) {
            self.records.remove(&name);
            self.lost.insert(name.clone(), now);
        }
        self.gone.insert(gone, now);
        Told { namespace: name.namespace, controller: record::<F>(metadata).controller }
    }
}

/// Namespace and name.
pub(super) fn key(metadata: &ObjectMeta) -> Name {
    Name::new(metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or_default())
}

/// The object that controls another.
pub(super) fn owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// What the metadata of an object tells.
pub(super) fn record<F: Facts>(metadata: &ObjectMeta) -> Record<F> {
    let nothing = BTreeMap::new();
    let annotations = metadata.annotations.as_ref().unwrap_or(&nothing);
    let component = metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT)).cloned().unwrap_or_default();
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    let owner = owner(metadata);
    let other = annotations.get(FOR).cloned();
    let facts = || F::read(annotations).ok_or_else(|| "somebody who removed its annotations".to_owned());
    let written = annotations.keys().filter(|name| name.starts_with("credence.dev/")).map(String::as_str);
    Record {
        version: version(metadata),
        uid: metadata.uid.clone().unwrap_or_default(),
        owner: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
        controller: owner.map(|owner| format!("{}/{}", owner.kind, owner.name)).or(other).unwrap_or_default().into(),
        facts: untouched(entries, F::entries(&component), written).and_then(|()| facts()),
        component,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Nothing;

    impl Facts for Nothing {
        const COMPONENTS: &'static str = "";

        fn read(_: &BTreeMap<String, String>) -> Option<Self> {
            Some(Self)
        }

        fn entries(_: &str) -> &'static [&'static str] {
            &[]
        }
    }

    fn metadata(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: Some("shop".into()),
            name: Some("orders-mtls".into()),
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    fn name() -> Name {
        Name::new(Some("shop"), "orders-mtls")
    }

    #[test]
    fn an_answer_that_comes_after_the_deletion_brings_nothing_back() {
        let (mut known, now) = (Known::<Nothing>::default(), Instant::now());
        known.forget(&metadata("1", "8"), now);
        known.wrote(&metadata("1", "7"));
        assert!(known.get(&name()).is_none(), "the watch knew better");
        known.wrote(&metadata("2", "9"));
        assert_eq!(known.get(&name()).unwrap().uid, "2", "a namesake is another object");
    }

    #[test]
    fn what_was_written_during_a_list_is_not_lost_with_it() {
        let (mut known, now) = (Known::<Nothing>::default(), Instant::now());
        known.begin_list();
        known.wrote(&metadata("1", "5"));
        assert!(known.conclude_list(&HashSet::new(), now).is_empty(), "the list is from before the write");
        assert!(known.get(&name()).is_some() && !known.was_lost(&name()));
        known.begin_list();
        assert_eq!(known.conclude_list(&HashSet::new(), now).len(), 1);
        assert!(known.get(&name()).is_none() && known.was_lost(&name()));
    }

    #[test]
    fn only_what_is_newer_is_news() {
        let mut known = Known::<Nothing>::default();
        known.wrote(&metadata("1", "5"));
        assert_eq!(known.note(&metadata("1", "5")), None, "our own write comes back");
        assert_eq!(known.note(&metadata("1", "4")), None, "the watch is behind");
        assert!(known.note(&metadata("1", "6")).is_some());
    }
}

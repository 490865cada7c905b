//! The cache of managed objects: the Secrets and ConfigMaps that the operator writes. It is filled by the watch and by the
//! answers to the operator's own writes. Pure: `now` is a parameter.
//!
//! Only metadata is cached. Annotations hold the facts about the content, and the field ownership that the API server records
//! shows whether another writer changed the content.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::ownership::unaltered;
use super::status::version;
use crate::api::KindName;
use crate::contract::component::{COMPONENT, Component, FOR, OWNER};
use crate::domain::altered::AlteredBy;
use crate::domain::contention::Contention;
use crate::domain::name::{Name, ObjectRef};

/// Facts about the content of a managed object, stored in its annotations.
pub trait Facts: Clone + Send + Sync + 'static {
    /// The components with these facts. The watch selects them.
    const COMPONENTS: &'static [Component];

    /// Reads the facts; `None` when they are incomplete. The object then counts as altered.
    fn read(annotations: &BTreeMap<String, String>) -> Option<Self>;

    /// The entries of `data` that an object of this component has.
    fn entries(component: Component) -> &'static [&'static str];

    /// How many bytes it takes of the share of the namespace that it was written for; `None` if that has no limit.
    fn size(&self) -> Option<usize> {
        None
    }
}

/// The cached metadata of one managed object.
#[derive(Clone, Debug)]
pub struct Record<F> {
    version: u64,
    /// UID of the object itself.
    pub uid: String,
    /// UID of the object that it belongs to: its controller, or the object in its annotation [`OWNER`].
    pub owner: Option<String>,
    /// Whether an owner reference says so: then the garbage collector deletes it with its owner.
    pub hangs: bool,
    /// The object that it was written for: its controller, or the object in its annotation [`FOR`].
    written_for: Option<ObjectRef>,
    /// Its component; `None` if this version does not write such objects.
    pub component: Option<Component>,
    /// The facts about its content, or the writer that altered it.
    pub facts: Result<F, AlteredBy>,
}

impl<F: Facts> Record<F> {
    /// The namespace whose share it is of, and how many bytes it takes.
    fn share(&self) -> Option<(Arc<str>, usize)> {
        let bytes = self.facts.as_ref().ok()?.size()?;
        Some((self.written_for.as_ref()?.name.namespace.clone(), bytes))
    }
}

/// How long the deletion of an object is remembered. The object that it was written for is reconciled at once.
const DELETION_MEMORY: Duration = Duration::from_secs(600);

/// An object that was repaired a short while ago.
#[derive(Clone, Debug)]
pub(super) struct Repaired {
    /// Its repairs.
    pub(super) contention: Contention,
    /// The writer that altered it last; `None` if it was deleted.
    pub(super) altered_by: Option<AlteredBy>,
    /// UID of the object that it belongs to: another one of the same name begins anew.
    owner: String,
}

/// The cache of all managed objects of one kind.
pub(super) struct Known<F> {
    /// Ordered by namespace and name, so that the objects of an identity are found without a scan.
    records: BTreeMap<Name, Arc<Record<F>>>,
    /// How many bytes were written for the objects of each namespace, or are being written, as far as they are limited.
    shares: HashMap<Arc<str>, usize>,
    /// The objects that were repaired a short while ago.
    repaired: HashMap<Name, Repaired>,
    /// The objects that another writer deleted, when, and to whom they belonged (UID).
    deleted: HashMap<Name, (Instant, Option<String>)>,
    /// The UIDs of deleted objects, and when the watch reported the deletion. The answer to an earlier write may arrive later.
    deleted_uids: HashMap<String, Instant>,
    /// During a list: the objects written since it began, which the list may not contain.
    written: Option<HashSet<Name>>,
}

impl<F> Default for Known<F> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            shares: HashMap::new(),
            repaired: HashMap::new(),
            deleted: HashMap::new(),
            deleted_uids: HashMap::new(),
            written: None,
        }
    }
}

impl<F: Facts> Known<F> {
    pub(super) fn get(&self, name: &Name) -> Option<Arc<Record<F>>> {
        self.records.get(name).cloned()
    }

    pub(super) fn share(&self, namespace: &str) -> usize {
        self.shares.get(namespace).copied().unwrap_or_default()
    }

    fn insert(&mut self, name: Name, record: Record<F>) {
        self.take(&name);
        if let Some((namespace, bytes)) = record.share() {
            self.take_room(namespace, bytes);
        }
        self.records.insert(name, Arc::new(record));
    }

    fn take(&mut self, name: &Name) -> Option<Arc<Record<F>>> {
        let record = self.records.remove(name)?;
        if let Some((namespace, bytes)) = record.share() {
            self.give_back(&namespace, bytes);
        }
        Some(record)
    }

    /// Counts bytes that an object of a namespace has, or will have.
    pub(super) fn take_room(&mut self, namespace: Arc<str>, bytes: usize) {
        *self.shares.entry(namespace).or_default() += bytes;
    }

    /// Bytes that were counted are not there any more.
    pub(super) fn give_back(&mut self, namespace: &str, bytes: usize) {
        let Some(share) = self.shares.get_mut(namespace) else { return };
        *share -= bytes;
        if *share == 0 {
            self.shares.remove(namespace);
        }
    }

    pub(super) fn was_deleted(&self, name: &Name, owner: &str) -> bool {
        self.deleted.get(name).is_some_and(|(_, of)| of.as_deref() == Some(owner))
    }

    /// The repairs of an object of this owner, and the writer that altered it.
    pub(super) fn contention(&self, name: &Name, owner: &str) -> Option<&Repaired> {
        self.repaired.get(name).filter(|repaired| repaired.owner == owner)
    }

    pub(super) fn owned_by(&self, owner: Option<&str>) -> Vec<(Name, Arc<Record<F>>)> {
        let owned = self.records.iter().filter(|(_, record)| record.owner.as_deref() == owner);
        owned.map(|(name, record)| (name.clone(), record.clone())).collect()
    }

    /// The objects of a namespace whose names begin with that of `prefix`.
    pub(super) fn with_prefix(&self, prefix: &Name, owner: &str) -> Vec<(Arc<str>, Arc<Record<F>>)> {
        self.records
            .range(prefix.clone()..)
            .take_while(|(found, _)| found.namespace == prefix.namespace && found.name.starts_with(&*prefix.name))
            .filter(|(_, record)| record.owner.as_deref() == Some(owner))
            .map(|(found, record)| (found.name.clone(), record.clone()))
            .collect()
    }

    /// Notes that an object was repaired after another writer had changed it, or deleted it (`None`).
    pub(super) fn repaired(&mut self, name: Name, owner: &str, altered_by: Option<AlteredBy>, now: Instant) {
        self.repaired.retain(|_, repaired| !repaired.contention.is_over(now));
        let contention = match self.contention(&name, owner) {
            Some(repaired) => repaired.contention.repaired(now),
            None => Contention::new(now),
        };
        self.repaired.insert(name, Repaired { contention, altered_by, owner: owner.to_owned() });
    }

    /// Notes that a list begins.
    pub(super) fn begin_list(&mut self) {
        self.written = Some(HashSet::new());
    }

    /// Removes the objects that the list did not contain, and returns the objects that they were written for.
    pub(super) fn conclude_list(&mut self, seen: &HashSet<Name>, now: Instant) -> Vec<ObjectRef> {
        let written = self.written.take().unwrap_or_default();
        let is_gone = |name: &Name| !seen.contains(name) && !written.contains(name);
        let gone: Vec<Name> = self.records.keys().filter(|name| is_gone(name)).cloned().collect();
        gone.into_iter()
            .filter_map(|name| {
                let record = self.take(&name)?;
                self.deleted.insert(name, (now, record.owner.clone()));
                record.written_for.clone()
            })
            .collect()
    }

    /// Applies the answer to our own write.
    pub(super) fn wrote(&mut self, metadata: &ObjectMeta) {
        self.note(metadata);
        if self.deleted_uids.contains_key(metadata.uid.as_deref().unwrap_or_default()) {
            return;
        }
        self.deleted.remove(&key(metadata));
        if let Some(written) = self.written.as_mut() {
            written.insert(key(metadata));
        }
    }

    /// Removes an object that we deleted.
    pub(super) fn remove(&mut self, name: &Name) {
        self.take(name);
    }

    /// Applies the current metadata of an object, and returns the object that it was written for. `None` if the cache is as
    /// new: the watch may be behind our own write.
    pub(super) fn note(&mut self, metadata: &ObjectMeta) -> Option<ObjectRef> {
        let (name, fresh) = (key(metadata), record(metadata));
        let is_old = self.records.get(&name).is_some_and(|known| known.version >= fresh.version);
        if is_old || self.deleted_uids.contains_key(&fresh.uid) {
            return None;
        }
        let written_for = fresh.written_for.clone();
        self.insert(name, fresh);
        written_for
    }

    /// Applies the metadata of an object as a list has it. Unless the object was written since the list began, the list knows
    /// better than what is cached: after a restore of etcd, versions are those of the past, and what was deleted exists.
    pub(super) fn listed(&mut self, metadata: &ObjectMeta) -> Option<ObjectRef> {
        let name = key(metadata);
        if !self.written.as_ref().is_some_and(|written| written.contains(&name)) {
            self.deleted_uids.remove(metadata.uid.as_deref().unwrap_or_default());
            if self.records.get(&name).is_some_and(|known| known.version > version(metadata)) {
                self.take(&name);
            }
        }
        self.note(metadata)
    }

    /// Removes an object that was deleted, and returns the object that it was written for.
    pub(super) fn forget(&mut self, metadata: &ObjectMeta, now: Instant) -> Option<ObjectRef> {
        let name = key(metadata);
        let uid = metadata.uid.clone().unwrap_or_default();
        self.deleted_uids.retain(|_, at| now.duration_since(*at) < DELETION_MEMORY);
        self.deleted.retain(|_, (at, _)| now.duration_since(*at) < DELETION_MEMORY);
        if self.records.get(&name).is_some_and(|known| known.uid == uid) {
            self.take(&name);
            self.deleted.insert(name, (now, owner_uid(metadata)));
        }
        self.deleted_uids.insert(uid, now);
        written_for(metadata)
    }
}

/// Namespace and name.
pub(super) fn key(metadata: &ObjectMeta) -> Name {
    Name::new(metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or_default())
}

/// The controller of an object (`ownerReferences` with `controller: true`).
pub(super) fn owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The UID of the object that a managed object belongs to.
pub(super) fn owner_uid(metadata: &ObjectMeta) -> Option<String> {
    let annotated = || metadata.annotations.as_ref()?.get(OWNER).cloned();
    owner(metadata).map(|owner| owner.uid.clone()).or_else(annotated)
}

/// The object that a managed object was written for.
fn written_for(metadata: &ObjectMeta) -> Option<ObjectRef> {
    let Some(owner) = owner(metadata) else {
        return ObjectRef::parse(metadata.annotations.as_ref()?.get(FOR)?);
    };
    let kind = KindName::parse(&owner.kind)?;
    let namespace = metadata.namespace.as_deref().filter(|_| kind.is_namespaced());
    Some(ObjectRef { kind, name: Name::new(namespace, &owner.name) })
}

/// How long the annotations may be that facts are read from, in bytes. Tenants can write them, and facts stay in memory.
const MAX_ANNOTATIONS: usize = 16 << 10;

fn is_bounded(annotations: &BTreeMap<String, String>) -> bool {
    let ours = annotations.iter().filter(|(name, _)| name.starts_with("credence.dev/"));
    ours.map(|(name, value)| name.len() + value.len()).sum::<usize>() <= MAX_ANNOTATIONS
}

/// The record of an object, from its metadata.
pub(super) fn record<F: Facts>(metadata: &ObjectMeta) -> Record<F> {
    let nothing = BTreeMap::new();
    let annotations = metadata.annotations.as_ref().unwrap_or(&nothing);
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT));
    let component = label.and_then(|label| Component::parse(label));
    let managers = metadata.managed_fields.as_deref().unwrap_or_default();
    let entries = component.map(F::entries).unwrap_or_default();
    let facts = || F::read(annotations).filter(|_| is_bounded(annotations)).ok_or(AlteredBy::Annotations);
    let written = annotations.keys().filter(|name| name.starts_with("credence.dev/")).map(String::as_str);
    Record {
        version: version(metadata),
        uid: metadata.uid.clone().unwrap_or_default(),
        owner: owner_uid(metadata),
        hangs: owner(metadata).is_some(),
        written_for: written_for(metadata),
        facts: unaltered(managers, entries, written).and_then(|()| facts()),
        component,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Clone)]
    struct Nothing;

    #[derive(Clone)]
    struct Sized(usize);

    impl Facts for Sized {
        const COMPONENTS: &'static [Component] = &[];

        fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
            annotations.get("credence.dev/size")?.parse().ok().map(Self)
        }

        fn entries(_: Component) -> &'static [&'static str] {
            &[]
        }

        fn size(&self) -> Option<usize> {
            Some(self.0)
        }
    }

    #[test]
    fn a_share_follows_what_is_written_and_deleted() {
        let (mut known, now) = (Known::<Sized>::default(), Instant::now());
        let ours = |name: &str, version: &str, size: usize| {
            let mut metadata = ObjectMeta { name: Some(name.into()), ..metadata(name, version) };
            let annotations = metadata.annotations.as_mut().unwrap();
            annotations.insert("credence.dev/size".into(), size.to_string());
            let fields = json!({"f:metadata": {"f:annotations": {"f:credence.dev/for": {}, "f:credence.dev/owner": {},
                "f:credence.dev/size": {}}}});
            let entry = json!({"manager": "credence", "operation": "Apply", "fieldsV1": fields});
            metadata.managed_fields = Some(vec![serde_json::from_value(entry).unwrap()]);
            metadata
        };
        for (name, version, size, bytes) in
            [("a", "1", 10, 10), ("b", "2", 5, 15), ("a", "3", 100, 105), ("a", "2", 7, 105)]
        {
            known.note(&ours(name, version, size));
            assert_eq!(known.share("shop"), bytes, "{name} {version}");
        }
        known.forget(&ours("a", "4", 100), now);
        known.remove(&Name::new(Some("shop"), "absent"));
        assert_eq!(known.share("shop"), 5);
        known.begin_list();
        known.listed(&ours("b", "1", 4));
        assert_eq!(known.share("shop"), 4, "after a restore of etcd");
        known.begin_list();
        known.conclude_list(&HashSet::new(), now);
        assert_eq!((known.share("shop"), known.shares.len()), (0, 0));
    }

    impl Facts for Nothing {
        const COMPONENTS: &'static [Component] = &[];

        fn read(_: &BTreeMap<String, String>) -> Option<Self> {
            Some(Self)
        }

        fn entries(_: Component) -> &'static [&'static str] {
            &[]
        }
    }

    fn metadata(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            annotations: Some(
                [(FOR, "WebhookEndpoint/shop/orders"), (OWNER, "owner")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
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
    fn an_answer_after_the_deletion_restores_nothing() {
        let (mut known, now) = (Known::<Nothing>::default(), Instant::now());
        known.forget(&metadata("1", "8"), now);
        known.wrote(&metadata("1", "7"));
        assert!(known.get(&name()).is_none(), "the watch reported the deletion");
        known.wrote(&metadata("2", "9"));
        assert_eq!(known.get(&name()).unwrap().uid, "2", "another UID is another object");
    }

    #[test]
    fn an_object_written_during_a_list_stays() {
        let (mut known, now) = (Known::<Nothing>::default(), Instant::now());
        known.begin_list();
        known.wrote(&metadata("1", "5"));
        assert!(known.conclude_list(&HashSet::new(), now).is_empty(), "the list is older than the write");
        assert!(known.get(&name()).is_some() && !known.was_deleted(&name(), "owner"));
        known.begin_list();
        assert_eq!(known.conclude_list(&HashSet::new(), now).len(), 1);
        assert!(known.get(&name()).is_none() && known.was_deleted(&name(), "owner"));
    }

    #[test]
    fn what_happened_to_an_owner_does_not_pass_to_another_of_its_name() {
        let (mut known, now) = (Known::<Nothing>::default(), Instant::now());
        known.repaired(name(), "owner", None, now);
        assert!(known.contention(&name(), "owner").is_some() && known.contention(&name(), "other").is_none());
        known.wrote(&metadata("1", "5"));
        known.forget(&metadata("1", "5"), now);
        assert!(known.was_deleted(&name(), "owner") && !known.was_deleted(&name(), "other"));
    }

    #[test]
    fn a_list_knows_better_than_the_cache_after_a_restore() {
        let (mut known, now) = (Known::<Nothing>::default(), Instant::now());
        known.wrote(&metadata("1", "9"));
        known.begin_list();
        assert!(known.listed(&metadata("1", "5")).is_some(), "its version went back");
        assert!(known.conclude_list(&[name()].into(), now).is_empty());
        assert_eq!(known.get(&name()).unwrap().version, 5);
        known.forget(&metadata("1", "5"), now);
        known.begin_list();
        assert!(known.listed(&metadata("1", "4")).is_some(), "it exists again");
        known.wrote(&metadata("1", "6"));
        assert!(known.listed(&metadata("1", "4")).is_none(), "the list is older than the write");
        assert_eq!(known.get(&name()).unwrap().version, 6);
    }

    #[test]
    fn only_a_newer_version_is_a_change() {
        let mut known = Known::<Nothing>::default();
        known.wrote(&metadata("1", "5"));
        assert_eq!(known.note(&metadata("1", "5")), None, "the event of our own write");
        assert_eq!(known.note(&metadata("1", "4")), None, "the watch is behind");
        assert!(known.note(&metadata("1", "6")).is_some());
    }
}

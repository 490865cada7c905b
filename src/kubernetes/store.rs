//! The cached objects of one kind, kept up to date by a watch. An object is stored before its change is reported, so that the
//! receiver of the change finds it.
//!
//! Objects are packed: JSON, compressed with the largest object of their kind so far as the dictionary, since objects of one
//! kind are alike. A thousand objects take less than a megabyte, and unpacking one takes some microseconds.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use kube::Resource;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::yield_now;

use super::error::Error;
use super::guard::{Guarded, SchemaError, trim};
use crate::domain::name::Name;
use crate::stalls::by_length;

/// A change of one object. An object that does not match its schema counts as absent.
#[derive(Debug)]
pub struct Change<K> {
    /// Its name.
    pub name: Name,
    /// The object before the change; absent when it was created.
    pub before: Option<K>,
    /// The object after the change; absent when it was deleted.
    pub after: Option<K>,
}

impl<K> Change<K> {
    /// Whether these facts about the object changed. The facts of an absent object are `None`.
    pub fn differs<'a, F: PartialEq>(&'a self, facts: impl Fn(&'a K) -> F) -> bool {
        self.before.as_ref().map(&facts) != self.after.as_ref().map(&facts)
    }
}

/// An object as a watch delivers it.
pub trait Watched: Resource<DynamicType = ()> + Send + 'static {
    /// The object, when it matches its schema.
    type Object: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + 'static;

    /// How long the text is that is still to be read, in bytes.
    fn length(&self) -> usize;

    /// The object, or what does not match its schema.
    fn read(self) -> Result<Self::Object, SchemaError>;
}

impl<K> Watched for Guarded<K>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + 'static,
{
    type Object = K;

    fn length(&self) -> usize {
        self.length()
    }

    fn read(self) -> Result<K, SchemaError> {
        self.read()
    }
}

impl<K: Resource<DynamicType = ()> + Send + 'static> Watched for PartialObjectMeta<K> {
    type Object = Self;

    fn length(&self) -> usize {
        0
    }

    fn read(self) -> Result<Self, SchemaError> {
        Ok(self)
    }
}

#[derive(Clone)]
enum Entry {
    Packed {
        bytes: Arc<[u8]>,
        /// The dictionary that it was compressed with.
        dictionary: Arc<[u8]>,
    },
    /// What does not match the schema.
    Invalid(SchemaError),
}

impl Entry {
    fn json(&self) -> Result<Vec<u8>, SchemaError> {
        match self {
            Self::Packed { bytes, dictionary } => {
                decompress_size_prepended_with_dict(bytes, dictionary).map_err(|error| SchemaError::new(&error))
            }
            Self::Invalid(error) => Err(error.clone()),
        }
    }
}

/// The largest dictionary that LZ4 uses, in bytes.
const MAX_DICTIONARY: usize = 64 << 10;

type Entries = BTreeMap<Name, Entry>;

struct Shared {
    entries: RwLock<Entries>,
    dictionary: RwLock<Arc<[u8]>>,
    listed: watch::Sender<bool>,
}

/// All objects of one kind. Clones share one state.
pub struct Store<K> {
    shared: Arc<Shared>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), kind: PhantomData }
    }
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        let shared = Shared {
            entries: RwLock::default(),
            dictionary: RwLock::new(Arc::from([])),
            listed: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared), kind: PhantomData }
    }
}

impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + 'static> Store<K> {
    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.shared.entries.read()
    }

    fn entries_mut(&self) -> RwLockWriteGuard<'_, Entries> {
        self.shared.entries.write()
    }

    /// Waits until all objects were listed once.
    pub async fn wait_until_listed(&self) {
        // It cannot fail: the sender is part of `self`.
        let _ = self.shared.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// An object, or what does not match its schema; `None` when it does not exist.
    #[must_use]
    pub fn find(&self, name: &Name) -> Option<Result<K, SchemaError>> {
        let entry = self.entries().get(name).cloned()?;
        Some(Self::unpack(&entry))
    }

    /// Whether an object exists.
    #[must_use]
    pub fn contains(&self, namespace: Option<&str>, name: &str) -> bool {
        self.entries().contains_key(&Name::new(namespace, name))
    }

    /// An object that another one depends on: one that does not match its schema must not count as absent.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn look_up(&self, namespace: Option<&str>, name: &str) -> Result<Option<K>, Error> {
        let name = Name::new(namespace, name);
        self.find(&name).transpose().map_err(|error| Error::Unreadable {
            kind: K::kind(&()).into_owned(),
            name: name.to_string(),
            error,
        })
    }

    /// An object, if it exists and matches its schema.
    #[must_use]
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<K> {
        self.find(&Name::new(namespace, name))?.ok()
    }

    /// All objects, or those of one namespace. They are unpacked one by one.
    pub fn iter(&self, namespace: Option<&str>) -> impl Iterator<Item = (Name, Result<K, SchemaError>)> + '_ {
        let entries = self.entries();
        let begin = Name::new(namespace, "");
        let found: Vec<(Name, Entry)> = entries
            .range((Bound::Included(begin), Bound::Unbounded))
            .take_while(|(name, _)| namespace.is_none_or(|namespace| *name.namespace == *namespace))
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect();
        found.into_iter().map(|(name, entry)| (name, Self::unpack(&entry)))
    }

    /// All objects that match their schema, or those of one namespace.
    pub fn valid(&self, namespace: Option<&str>) -> impl Iterator<Item = K> + '_ {
        self.iter(namespace).filter_map(|(_, object)| object.ok())
    }

    /// The names of all objects, or of those of one namespace.
    #[must_use]
    pub fn names(&self, namespace: Option<&str>) -> Vec<Name> {
        let entries = self.entries();
        let names = entries.range((Bound::Included(Name::new(namespace, "")), Bound::Unbounded)).map(|(name, _)| name);
        names.take_while(|name| namespace.is_none_or(|namespace| *name.namespace == *namespace)).cloned().collect()
    }

    /// The dictionary for an object: the largest object so far. An object that is a quarter larger replaces it, because the
    /// first objects have no status yet.
    fn dictionary(&self, json: &[u8]) -> Arc<[u8]> {
        let mut dictionary = self.shared.dictionary.write();
        if json.len() > dictionary.len() * 5 / 4 && json.len() < MAX_DICTIONARY {
            *dictionary = json.into();
        }
        dictionary.clone()
    }

    fn pack(&self, object: &mut Result<K, SchemaError>) -> Entry {
        let packed = object.as_mut().map_err(|error| error.clone()).and_then(|object| {
            trim(object.meta_mut());
            serde_json::to_vec(object).map_err(|error| SchemaError::new(&error))
        });
        match packed {
            Ok(json) => {
                let dictionary = self.dictionary(&json);
                Entry::Packed { bytes: compress_prepend_size_with_dict(&json, &dictionary).into(), dictionary }
            }
            Err(error) => Entry::Invalid(error),
        }
    }

    fn unpack(entry: &Entry) -> Result<K, SchemaError> {
        serde_json::from_slice(&entry.json()?).map_err(|error| SchemaError::new(&error))
    }

    /// Reads and packs an object, on another thread if it is long.
    async fn take<W: Watched<Object = K>>(&self, object: W) -> (Name, Entry, Result<K, SchemaError>) {
        let (store, name) = (self.clone(), Name::of(&object));
        by_length(object.length(), move || {
            let mut object = object.read();
            (name, store.pack(&mut object), object)
        })
        .await
    }

    /// Follows a watch, and calls `changed` for every object that was created, changed or deleted. It returns only when the
    /// stream ends, which a watch does not do by itself.
    pub async fn follow<W>(self, events: impl Stream<Item = Event<W>> + Send, mut changed: impl FnMut(Change<K>) + Send)
    where
        W: Watched<Object = K>,
    {
        let readable = |entry: Option<Entry>| entry.and_then(|entry| Self::unpack(&entry).ok());
        pin_mut!(events);
        let mut listing = Entries::new();
        while let Some(event) = events.next().await {
            // The next ones are here already, mostly, and nobody on this thread should wait for all of them.
            yield_now().await;
            match event {
                Event::Apply(object) => {
                    let (name, entry, object) = self.take(object).await;
                    let before = self.entries_mut().insert(name.clone(), entry);
                    changed(Change { name, before: readable(before), after: object.ok() });
                }
                Event::Delete(object) => {
                    let name = Name::of(&object);
                    let before = self.entries_mut().remove(&name);
                    changed(Change { name, before: readable(before), after: None });
                }
                Event::Init => listing.clear(),
                Event::InitApply(object) => {
                    let (name, entry, _) = self.take(object).await;
                    listing.insert(name, entry);
                }
                Event::InitDone => {
                    let fresh = std::mem::take(&mut listing);
                    let mut before = std::mem::replace(&mut *self.entries_mut(), fresh);
                    for name in self.names_of_both(&before) {
                        yield_now().await;
                        let (before, after) = (before.remove(&name), self.entries().get(&name).cloned());
                        let is_same = before.as_ref().map(Entry::json) == after.as_ref().map(Entry::json);
                        if !is_same {
                            changed(Change { name, before: readable(before), after: readable(after) });
                        }
                    }
                    // Only now: what follows from the objects, such as who holds a name, is known for all of them together.
                    self.shared.listed.send_replace(true);
                }
            }
        }
    }

    /// The names of the objects that are gone since before a list, and then of all others.
    fn names_of_both(&self, before: &Entries) -> Vec<Name> {
        let entries = self.entries();
        before.keys().filter(|name| !entries.contains_key(*name)).chain(entries.keys()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn config_map(namespace: &str, name: &str, version: u32) -> Guarded<ConfigMap> {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": version.to_string()},
            "data": {"text": "the same in all of them"},
        }))
        .unwrap()
    }

    async fn follow(store: &Store<ConfigMap>, events: Vec<Event<Guarded<ConfigMap>>>) -> Vec<String> {
        let mut changed = Vec::new();
        store.clone().follow(stream::iter(events), |change| changed.push(change.name.to_string())).await;
        changed
    }

    #[tokio::test]
    async fn a_list_reports_exactly_what_changed() {
        let store = Store::default();
        let listed = |objects: Vec<Guarded<ConfigMap>>| {
            let objects = objects.into_iter().map(Event::InitApply);
            std::iter::once(Event::Init).chain(objects).chain([Event::InitDone]).collect::<Vec<_>>()
        };
        let first = [config_map("a", "kept", 1), config_map("a", "changed", 1), config_map("b", "gone", 1)];
        assert_eq!(follow(&store, listed(first.to_vec())).await, ["a/changed", "a/kept", "b/gone"]);
        let second = vec![config_map("a", "kept", 1), config_map("a", "changed", 2), config_map("c", "new", 1)];
        assert_eq!(follow(&store, listed(second)).await, ["b/gone", "a/changed", "c/new"]);
        assert!(store.get(Some("b"), "gone").is_none());
        assert_eq!(store.get(Some("a"), "changed").unwrap().metadata.resource_version.as_deref(), Some("2"));
    }

    /// Whoever waits for the list takes names, for example, and must not come before their holders.
    #[tokio::test]
    async fn a_list_is_complete_once_its_changes_were_reported() {
        let (store, mut too_early) = (Store::default(), false);
        let listed = store.shared.listed.subscribe();
        let events = [Event::Init, Event::InitApply(config_map("a", "x", 1)), Event::InitDone];
        store.clone().follow(stream::iter(events), |_: Change<ConfigMap>| too_early |= *listed.borrow()).await;
        assert!(!too_early && *listed.borrow());
    }

    #[tokio::test]
    async fn objects_are_found_by_name_and_by_namespace() {
        let store = Store::default();
        let objects = [("a", "x"), ("a", "y"), ("ab", "x"), ("b", "x")];
        let events = objects.map(|(namespace, name)| Event::Apply(config_map(namespace, name, 1)));
        follow(&store, events.to_vec()).await;
        assert_eq!(store.valid(None).count(), 4);
        let of_a: Vec<String> = store.names(Some("a")).iter().map(ToString::to_string).collect();
        assert_eq!(of_a, ["a/x", "a/y"]);
        assert_eq!(store.valid(Some("a")).count(), 2);
        follow(&store, vec![Event::Delete(config_map("a", "x", 1))]).await;
        assert!(store.get(Some("a"), "x").is_none() && store.get(Some("a"), "y").is_some());
    }

    #[tokio::test]
    async fn similar_objects_take_little_memory() {
        let store = Store::default();
        follow(&store, vec![Event::Apply(config_map("a", "x", 1)), Event::Apply(config_map("a", "y", 2))]).await;
        let Some(Entry::Packed { bytes: packed, .. }) = store.entries().get(&Name::new(Some("a"), "y")).cloned() else {
            panic!()
        };
        let plain = serde_json::to_vec(&store.get(Some("a"), "y").unwrap()).unwrap();
        assert!(packed.len() * 3 < plain.len(), "{} of {} bytes", packed.len(), plain.len());
    }
}

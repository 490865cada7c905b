//! Managed objects: the Secrets and ConfigMaps that the operator writes. Watches them, and writes them without ever changing an
//! object of another owner. Their cache is `known.rs`.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions, Request};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::FIELD_MANAGER;
use super::error::{Error, has_code};
use super::known::{Facts, Known, Record, Repaired, key, owner_uid, record};
use crate::contract::component::selector;
use crate::domain::altered::AlteredBy;
use crate::domain::name::{Name, ObjectRef};
use crate::stalls::by_length;

/// An object that another writer changes or deletes again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contended {
    /// Subject, cause and next step, for people.
    pub message: String,
    /// How long to wait: until the next repair, or until the contention counts as over.
    pub wait: Duration,
}

/// Room in the share of a namespace for an object that is being written. When it is dropped, the object counts by itself.
#[must_use]
pub struct Room<'a, F: Facts> {
    known: &'a RwLock<Known<F>>,
    namespace: Arc<str>,
    bytes: usize,
}

impl<F: Facts> Drop for Room<'_, F> {
    fn drop(&mut self) {
        self.known.write().give_back(&self.namespace, self.bytes);
    }
}

/// All managed objects of one kind.
pub struct Owned<K, F> {
    client: Client,
    known: RwLock<Known<F>>,
    kind: PhantomData<fn() -> K>,
}

impl<K, F> Owned<K, F>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + 'static,
    F: Facts,
{
    /// The cache is empty until [`Self::follow`] has listed the objects.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: RwLock::default(), kind: PhantomData }
    }

    /// The label selector of the watch.
    #[must_use]
    pub fn selector() -> String {
        selector(F::COMPONENTS)
    }

    fn read_known(&self) -> RwLockReadGuard<'_, Known<F>> {
        self.known.read()
    }

    fn write_known(&self) -> RwLockWriteGuard<'_, Known<F>> {
        self.known.write()
    }

    /// Follows the metadata watch. Calls `listed` after each complete list. When a managed object changed, calls `changed` with
    /// the object that it was written for.
    pub async fn follow(
        &self,
        events: impl Stream<Item = Event<PartialObjectMeta<K>>> + Send,
        mut listed: impl FnMut() + Send,
        mut changed: impl FnMut(ObjectRef) + Send,
    ) {
        pin_mut!(events);
        let mut seen: HashSet<Name> = HashSet::new();
        let mut affected: Vec<ObjectRef> = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Apply(object) => {
                    let written_for = self.write_known().note(&object.metadata);
                    written_for.into_iter().for_each(&mut changed);
                }
                Event::Delete(object) => {
                    let written_for = self.write_known().forget(&object.metadata, Instant::now());
                    written_for.into_iter().for_each(&mut changed);
                }
                Event::Init => {
                    seen.clear();
                    affected.clear();
                    self.write_known().begin_list();
                }
                Event::InitApply(object) => {
                    affected.extend(self.write_known().listed(&object.metadata));
                    seen.insert(key(&object.metadata));
                }
                Event::InitDone => {
                    affected.extend(self.write_known().conclude_list(&seen, Instant::now()));
                    listed();
                    // Their managed objects changed while the watch was interrupted.
                    affected.drain(..).for_each(&mut changed);
                }
            }
        }
    }

    /// The cached metadata of an object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Record<F>>> {
        self.read_known().get(&Name::new(Some(namespace), name))
    }

    /// Whether another writer deleted the object of this owner (a UID) a short while ago.
    pub fn was_deleted(&self, namespace: &str, name: &str, owner: &str) -> bool {
        self.read_known().was_deleted(&Name::new(Some(namespace), name), owner)
    }

    /// Set if an object of this owner (a UID) must not be repaired yet, because it was repaired a short while ago.
    pub fn held_back(&self, (namespace, name, owner): (&str, &str, &str), now: Instant) -> Option<Contended> {
        let known = self.read_known();
        let repaired = known.contention(&Name::new(Some(namespace), name), owner)?;
        let wait = repaired.contention.repair_at().saturating_duration_since(now);
        let is_held_back = !repaired.contention.is_over(now) && !wait.is_zero();
        is_held_back.then(|| Self::describe_contention(namespace, name, repaired, wait))
    }

    /// Set if another writer changes or deletes an object again and again, until it has stopped for a while.
    pub fn contended(&self, (namespace, name, owner): (&str, &str, &str), now: Instant) -> Option<Contended> {
        let known = self.read_known();
        let repaired = known.contention(&Name::new(Some(namespace), name), owner)?;
        let wait = repaired.contention.contended_until()?.saturating_duration_since(now);
        (!wait.is_zero()).then(|| Self::describe_contention(namespace, name, repaired, wait))
    }

    fn describe_contention(namespace: &str, name: &str, repaired: &Repaired, wait: Duration) -> Contended {
        let writer = repaired.altered_by.as_ref().map_or_else(|| "another writer".to_owned(), ToString::to_string);
        let message = format!(
            "the {} {namespace}/{name} is repeatedly changed or deleted by {writer}, and Credence repairs it at most once a \
             minute; find that writer and stop it",
            K::kind(&())
        );
        Contended { message, wait }
    }

    /// Notes that an object was repaired after another writer had changed it, or deleted it (`None`).
    pub fn repaired(&self, (namespace, name, owner): (&str, &str, &str), altered_by: Option<&AlteredBy>, now: Instant) {
        self.write_known().repaired(Name::new(Some(namespace), name), owner, altered_by.cloned(), now);
    }

    /// Removes the owner references of an object, so that the garbage collector does not delete it with its owner, and notes
    /// its owner in annotations instead.
    ///
    /// # Errors
    /// The error of the API server. An object that does not exist is not an error.
    pub async fn detach(&self, name: &Name, annotations: &BTreeMap<String, String>) -> Result<(), Error> {
        let Some(record) = self.get(&name.namespace, &name.name) else { return Ok(()) };
        let api: Api<K> = Api::namespaced(self.client.clone(), &name.namespace);
        let metadata = json!({"uid": record.uid, "ownerReferences": null, "annotations": annotations});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_metadata(&name.name, &params, &Patch::Merge(json!({"metadata": metadata}))).await {
            Ok(written) => self.write_known().wrote(&written.metadata),
            Err(error) if has_code(&error, 404) => {}
            Err(error) => return Err(Error::api(format!("detach {} {name}", K::kind(&())))(error)),
        }
        Ok(())
    }

    /// All objects that belong to this object (a UID), or to none.
    pub fn owned_by(&self, owner: Option<&str>) -> Vec<(Name, Arc<Record<F>>)> {
        self.read_known().owned_by(owner)
    }

    /// The objects of one namespace with this controller whose names begin with `prefix`.
    pub fn owned_with_prefix(&self, namespace: &str, prefix: &str, owner: &str) -> Vec<(Arc<str>, Arc<Record<F>>)> {
        self.read_known().with_prefix(&Name::new(Some(namespace), prefix), owner)
    }

    /// How many bytes the objects have that were written for a namespace, or are being written.
    pub fn share(&self, namespace: &str) -> usize {
        self.read_known().share(namespace)
    }

    /// Takes room for an object that is about to grow by this many bytes, unless `refuse` says why not, given what its namespace has.
    ///
    /// # Errors
    /// Why not.
    pub fn reserve<R>(
        &self,
        namespace: &str,
        bytes: usize,
        refuse: impl FnOnce(usize) -> Option<R>,
    ) -> Result<Room<'_, F>, R> {
        let (mut known, namespace) = (self.write_known(), Arc::<str>::from(namespace));
        if let Some(refusal) = refuse(known.share(&namespace)) {
            return Err(refusal);
        }
        known.take_room(namespace.clone(), bytes);
        Ok(Room { known: &self.known, namespace, bytes })
    }

    /// Creates or updates an object. An object of another owner is not changed.
    ///
    /// # Errors
    /// [`Error::NotOwned`] for an object of another owner, otherwise the error of the API server.
    pub async fn put(&self, object: &K) -> Result<(), Error> {
        let Name { namespace, name } = key(object.meta());
        let owner = owner_uid(object.meta());
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let doing = |verb: &str| format!("{verb} {} {namespace}/{name}", K::kind(&()));
        let known = match self.get(&namespace, &name) {
            Some(record) => record,
            None => {
                let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false };
                match api.create(&params, object).await {
                    Ok(created) => {
                        self.write_known().wrote(created.meta());
                        return Ok(());
                    }
                    // It exists without our labels, and is ours only if its controller is the same.
                    Err(error) if has_code(&error, 409) => {
                        let found = api.get_metadata(&name).await.map_err(Error::api(doing("look up")))?;
                        Arc::new(record(&found.metadata))
                    }
                    Err(error) => return Err(Error::api(doing("create"))(error)),
                }
            }
        };
        if known.owner != owner {
            return Err(Error::NotOwned { kind: K::kind(&()).into_owned(), name: format!("{namespace}/{name}") });
        }
        let mut object = object.clone();
        // With the UID, the write fails if the object was replaced in the meantime.
        object.meta_mut().uid = Some(known.uid.clone());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let answer = api.patch(&name, &params, &Patch::Apply(&object)).await.map_err(Error::api(doing("update")))?;
        self.write_known().wrote(answer.meta());
        Ok(())
    }

    /// Deletes an object with this controller (a UID), or without one. Any other object is not deleted.
    ///
    /// # Errors
    /// The error of the API server. An object that does not exist is not an error.
    pub async fn delete(&self, namespace: &str, name: &str, owner: Option<&str>) -> Result<(), Error> {
        let found = self.get(namespace, name).filter(|record| record.owner.as_deref() == owner);
        let Some(record) = found else { return Ok(()) };
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(record.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Err(error) if !has_code(&error, 404) => {
                Err(Error::api(format!("delete {} {namespace}/{name}", K::kind(&())))(error))
            }
            _ => {
                self.write_known().remove(&Name::new(Some(namespace), name));
                Ok(())
            }
        }
    }

    /// Reads an object with its data from the API server.
    ///
    /// # Errors
    /// The error of the API server.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        self.read_as(namespace, name, |object| object).await
    }

    /// Reads an object with its data from the API server, and works on it. Its owner may have made it as large as the API server
    /// takes it: then both are done on another thread.
    ///
    /// # Errors
    /// The error of the API server.
    pub async fn read_as<T: Send + 'static>(
        &self,
        namespace: &str,
        name: &str,
        work: impl FnOnce(K) -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let failed = |error| Error::api(format!("read {} {namespace}/{name}", K::kind(&())))(error);
        let request = Request::new(K::url_path(&(), Some(namespace))).get(name, &GetParams::default());
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let text = match self.client.request_text(request).await {
            Ok(text) => text,
            Err(error) if has_code(&error, 404) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let worked = by_length(text.len(), move || serde_json::from_str(&text).map(work)).await;
        worked.map(Some).map_err(|error| failed(kube::Error::SerdeError(error)))
    }
}

//! Secrets and ConfigMaps that the operator writes: how they are watched, and written without ever touching what belongs
//! to others. What is known of them is kept apart from that (`known.rs`).

use std::collections::HashSet;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, has_code};
use super::known::{Facts, Known, Record, Told, key, owner, record};
use super::{FIELD_MANAGER, MANAGED_BY};
use crate::domain::name::Name;

/// All written objects of one kind.
pub struct Owned<K, F> {
    client: Client,
    known: RwLock<Known<F>>,
    kind: PhantomData<fn() -> K>,
}

impl<K, F> Owned<K, F>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug + Send,
    F: Facts,
{
    /// Nothing is known before [`Self::follow`] has listed.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: RwLock::default(), kind: PhantomData }
    }

    /// The label selector of the watch.
    #[must_use]
    pub fn selector() -> String {
        let ours = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
        if F::COMPONENTS.is_empty() { ours } else { format!("{ours},{}", F::COMPONENTS) }
    }

    fn read_known(&self) -> RwLockReadGuard<'_, Known<F>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_known(&self) -> RwLockWriteGuard<'_, Known<F>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the metadata watch. `listed` is called after each complete list, `changed` with the namespace and the
    /// controlling object (`Kind/name`) for every change.
    pub async fn follow(
        &self,
        events: impl Stream<Item = Event<PartialObjectMeta<K>>> + Send,
        mut listed: impl FnMut() + Send,
        mut changed: impl FnMut(&str, &str) + Send,
    ) {
        pin_mut!(events);
        let mut seen: HashSet<Name> = HashSet::new();
        let mut touched: Vec<Told> = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Apply(object) => {
                    let told = self.write_known().note(&object.metadata);
                    if let Some(Told { namespace, controller }) = told {
                        changed(&namespace, &controller);
                    }
                }
                Event::Delete(object) => {
                    let Told { namespace, controller } = self.write_known().forget(&object.metadata, Instant::now());
                    changed(&namespace, &controller);
                }
                Event::Init => {
                    seen.clear();
                    touched.clear();
                    self.write_known().begin_list();
                }
                Event::InitApply(object) => {
                    touched.extend(self.write_known().note(&object.metadata));
                    seen.insert(key(&object.metadata));
                }
                Event::InitDone => {
                    touched.extend(self.write_known().conclude_list(&seen, Instant::now()));
                    listed();
                    // What changed while nobody watched is told now.
                    for Told { namespace, controller } in touched.drain(..) {
                        changed(&namespace, &controller);
                    }
                }
            }
        }
    }

    /// What is known of an object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Record<F>>> {
        self.read_known().get(&Name::new(Some(namespace), name))
    }

    /// Whether somebody else deleted the object a short while ago.
    pub fn was_lost(&self, namespace: &str, name: &str) -> bool {
        self.read_known().was_lost(&Name::new(Some(namespace), name))
    }

    /// Why an object must not be put back yet, and for how long: that was done a short while ago.
    pub fn held_back(&self, namespace: &str, name: &str, now: Instant) -> Option<(String, Duration)> {
        let known = self.read_known();
        let (contention, who) = known.contention(&Name::new(Some(namespace), name))?;
        let pause = contention.repair_at().saturating_duration_since(now);
        (!contention.is_over(now) && !pause.is_zero()).then(|| (Self::contended(namespace, name, who), pause))
    }

    /// Whether somebody keeps changing an object: in words, and after how long in peace that counts as ended.
    pub fn fight(&self, namespace: &str, name: &str, now: Instant) -> Option<(String, Duration)> {
        let known = self.read_known();
        let (contention, who) = known.contention(&Name::new(Some(namespace), name))?;
        let calm_in = contention.fight_until()?.saturating_duration_since(now);
        (!calm_in.is_zero()).then(|| (Self::contended(namespace, name, who), calm_in))
    }

    fn contended(namespace: &str, name: &str, who: &str) -> String {
        format!(
            "the {} {namespace}/{name} is changed or deleted again and again by {who}; it is put back once a minute at \
             most. Find out who that is and stop it",
            K::kind(&())
        )
    }

    /// Notes that an object was put back after somebody else had changed or deleted it.
    pub fn repaired(&self, namespace: &str, name: &str, who: Option<&str>, now: Instant) {
        self.write_known().repaired(Name::new(Some(namespace), name), who.unwrap_or("somebody"), now);
    }

    /// All objects that an owner controls.
    pub fn owned_by(&self, owner: &str) -> Vec<(Name, Arc<Record<F>>)> {
        self.read_known().owned_by(owner)
    }

    /// The objects of one namespace whose names begin with `prefix` and that an owner controls, with their names.
    pub fn owned_with_prefix(&self, namespace: &str, prefix: &str, owner: &str) -> Vec<(Arc<str>, Arc<Record<F>>)> {
        self.read_known().with_prefix(&Name::new(Some(namespace), prefix), owner)
    }

    /// Creates or updates an object. What exists and belongs to somebody else is left alone.
    ///
    /// # Errors
    /// [`Error::NotOwned`] for an object of somebody else, otherwise what the API server said.
    pub async fn put(&self, object: &K) -> Result<(), Error> {
        let Name { namespace, name } = key(object.meta());
        let owner = owner(object.meta()).map(|owner| owner.uid.clone()).unwrap_or_default();
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
                    // It exists without our label: ours only if the owner says so.
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
        // With its UID the write can only reach the object that was looked at.
        object.meta_mut().uid = Some(known.uid.clone());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let answer = api.patch(&name, &params, &Patch::Apply(&object)).await.map_err(Error::api(doing("update")))?;
        self.write_known().wrote(answer.meta());
        Ok(())
    }

    /// Deletes an object that `owner` controls; anything else is left alone.
    ///
    /// # Errors
    /// When the API server refuses; an object that is gone is not an error.
    pub async fn delete(&self, namespace: &str, name: &str, owner: &str) -> Result<(), Error> {
        let Some(record) = self.get(namespace, name).filter(|record| record.owner == owner) else { return Ok(()) };
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

    /// Reads an object whole.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(name).await.map_err(Error::api(format!("read {} {namespace}/{name}", K::kind(&()))))
    }
}

//! Secrets and ConfigMaps that the operator writes: which exist, whether somebody else changed them, and how they are
//! written without ever touching what belongs to others.
//!
//! Only metadata is watched and kept. Facts about the content stand in annotations, and the field ownership that the
//! API server keeps shows whether anybody else wrote the content since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, has_code};
use super::ownership::untouched;
use super::status::version;
use super::{COMPONENT, FIELD_MANAGER, FOR, MANAGED_BY};
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

/// How long it is remembered that an object was deleted by somebody else; its owner is told at once.
const REMEMBERED: Duration = Duration::from_secs(600);

struct Known<F> {
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

/// All written objects of one kind.
pub struct Owned<K, F> {
    client: Client,
    known: RwLock<Known<F>>,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K, F> Owned<K, F>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug + Send,
    F: Facts,
{
    /// Nothing is known before [`Self::follow`] has listed.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let known = Known {
            records: BTreeMap::new(),
            contentions: HashMap::new(),
            lost: HashMap::new(),
            gone: HashMap::new(),
            written: None,
        };
        Self { client, known: RwLock::new(known), kind: std::marker::PhantomData }
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
        let mut touched: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Apply(object) => {
                    if let Some((namespace, controller)) = self.note(&object.metadata) {
                        changed(&namespace, &controller);
                    }
                }
                Event::Delete(object) => {
                    let (namespace, controller) = self.forget(&object.metadata);
                    changed(&namespace, &controller);
                }
                Event::Init => {
                    seen.clear();
                    touched.clear();
                    self.write_known().written = Some(HashSet::new());
                }
                Event::InitApply(object) => {
                    touched.extend(self.note(&object.metadata));
                    seen.insert(key(&object.metadata));
                }
                Event::InitDone => {
                    touched.extend(self.conclude_list(&seen));
                    listed();
                    // What changed while nobody watched is told now.
                    for (namespace, controller) in touched.drain(..) {
                        changed(&namespace, &controller);
                    }
                }
            }
        }
    }

    /// Drops what the list did not show, and says whose it was.
    fn conclude_list(&self, seen: &HashSet<Name>) -> Vec<(Arc<str>, Arc<str>)> {
        let mut known = self.write_known();
        let written = known.written.take().unwrap_or_default();
        let is_gone = |key: &Name| !seen.contains(key) && !written.contains(key);
        let gone: Vec<Name> = known.records.keys().filter(|key| is_gone(key)).cloned().collect();
        let now = Instant::now();
        gone.into_iter()
            .filter_map(|key| {
                let record = known.records.remove(&key)?;
                known.lost.insert(key.clone(), now);
                Some((key.namespace, record.controller.clone()))
            })
            .collect()
    }

    /// What is known of an object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Record<F>>> {
        self.read_known().records.get(&Name::new(Some(namespace), name)).cloned()
    }

    /// Whether somebody else deleted the object a short while ago.
    pub fn was_lost(&self, namespace: &str, name: &str) -> bool {
        self.read_known().lost.contains_key(&Name::new(Some(namespace), name))
    }

    /// Why an object must not be put back yet, and for how long: that was done a short while ago.
    pub fn held_back(&self, namespace: &str, name: &str, now: Instant) -> Option<(String, Duration)> {
        let known = self.read_known();
        let (contention, who) = known.contentions.get(&Name::new(Some(namespace), name))?;
        let pause = contention.repair_at().saturating_duration_since(now);
        (!contention.is_over(now) && !pause.is_zero()).then(|| (Self::contended(namespace, name, who), pause))
    }

    /// Whether somebody keeps changing an object: in words, and after how long in peace that counts as ended.
    pub fn fight(&self, namespace: &str, name: &str, now: Instant) -> Option<(String, Duration)> {
        let known = self.read_known();
        let (contention, who) = known.contentions.get(&Name::new(Some(namespace), name))?;
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
        let mut known = self.write_known();
        known.contentions.retain(|_, (contention, _)| !contention.is_over(now));
        let key = Name::new(Some(namespace), name);
        let contention = match known.contentions.get(&key) {
            Some((contention, _)) => contention.repaired(now),
            None => Contention::new(now),
        };
        known.contentions.insert(key, (contention, who.unwrap_or("somebody").to_owned()));
    }

    /// All objects that an owner controls.
    pub fn owned_by(&self, owner: &str) -> Vec<(Name, Arc<Record<F>>)> {
        let known = self.read_known();
        let owned = known.records.iter().filter(|(_, record)| record.owner == owner);
        owned.map(|(key, record)| (key.clone(), record.clone())).collect()
    }

    /// The objects of one namespace whose names begin with `prefix` and that an owner controls, with their names.
    pub fn owned_with_prefix(&self, namespace: &str, prefix: &str, owner: &str) -> Vec<(Arc<str>, Arc<Record<F>>)> {
        let known = self.read_known();
        known
            .records
            .range(Name::new(Some(namespace), prefix)..)
            .take_while(|(known, _)| *known.namespace == *namespace && known.name.starts_with(prefix))
            .filter(|(_, record)| record.owner == owner)
            .map(|(known, record)| (known.name.clone(), record.clone()))
            .collect()
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
                        self.wrote(created.meta());
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
        self.wrote(answer.meta());
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
                self.write_known().records.remove(&Name::new(Some(namespace), name));
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

    /// Takes up the answer to a write of our own.
    fn wrote(&self, metadata: &ObjectMeta) {
        self.note(metadata);
        let mut known = self.write_known();
        if known.gone.contains_key(metadata.uid.as_deref().unwrap_or_default()) {
            return;
        }
        known.lost.remove(&key(metadata));
        if let Some(written) = known.written.as_mut() {
            written.insert(key(metadata));
        }
    }

    /// Takes up what an object is now. Returns its namespace and the object that controls it when that is news: the
    /// watch may still be behind our own write.
    fn note(&self, metadata: &ObjectMeta) -> Option<(Arc<str>, Arc<str>)> {
        let fresh = record(metadata);
        let key = key(metadata);
        let mut known = self.write_known();
        let is_old = known.records.get(&key).is_some_and(|known| known.version >= fresh.version);
        if is_old || known.gone.contains_key(&fresh.uid) {
            return None;
        }
        let told = (key.namespace.clone(), fresh.controller.clone());
        known.records.insert(key, Arc::new(fresh));
        Some(told)
    }

    /// Forgets an object that is gone. Returns its namespace and the object that controlled it.
    fn forget(&self, metadata: &ObjectMeta) -> (Arc<str>, Arc<str>) {
        let (key, now) = (key(metadata), Instant::now());
        let mut known = self.write_known();
        let gone = metadata.uid.clone().unwrap_or_default();
        known.gone.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        known.lost.retain(|_, at| now.duration_since(*at) < REMEMBERED);
        if known.records.get(&key).is_some_and(|known| known.uid == gone) {
            known.records.remove(&key);
            known.lost.insert(key.clone(), now);
        }
        known.gone.insert(gone, now);
        (key.namespace, record::<F>(metadata).controller)
    }
}

fn key(metadata: &ObjectMeta) -> Name {
    Name::new(metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or_default())
}

fn owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn record<F: Facts>(metadata: &ObjectMeta) -> Record<F> {
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

    #[tokio::test]
    async fn an_answer_that_comes_after_the_deletion_brings_nothing_back() {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is there"))
        });
        let owned: Owned<k8s_openapi::api::core::v1::Secret, Nothing> = Owned::new(Client::new(nobody, "default"));
        let written = |uid: &str, version: &str| ObjectMeta {
            namespace: Some("shop".into()),
            name: Some("orders-mtls".into()),
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        owned.forget(&written("1", "8"));
        owned.wrote(&written("1", "7"));
        assert!(owned.get("shop", "orders-mtls").is_none(), "the watch knew better");
        owned.wrote(&written("2", "9"));
        assert_eq!(owned.get("shop", "orders-mtls").unwrap().uid, "2", "a namesake is another object");
    }
}

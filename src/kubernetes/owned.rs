//! Secrets and ConfigMaps that the operator writes: which exist, whether somebody else changed them, and how they are
//! written without ever touching what belongs to others.
//!
//! Only metadata is watched and kept. Facts about the content stand in annotations, and the field ownership that the
//! API server keeps shows whether anybody else wrote the content since.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{PoisonError, RwLock};

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Error as WatchError, Event};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{Error, has_code};
use super::status::resource_version;
use super::{COMPONENT, FIELD_MANAGER, MANAGED_BY};

/// Facts about the content of an object that stand in its annotations.
pub trait Facts: Clone + Send + Sync + 'static {
    /// Reads the facts; `None` when they are incomplete, which counts as altered.
    fn read(annotations: &BTreeMap<String, String>) -> Option<Self>;
}

/// What is known of one written object.
#[derive(Clone, Debug)]
pub struct Record<F> {
    version: u64,
    /// UID of the object itself.
    pub uid: String,
    /// UID of the object that controls it.
    pub owner: String,
    /// What it is for.
    pub component: String,
    /// What its content is; `None` when somebody else changed it.
    pub facts: Option<F>,
}

type Key = (String, String);

/// In the order of namespace and name, so that looking up what an identity owns does not scan the cluster.
type Records<F> = BTreeMap<Key, Record<F>>;

/// All written objects of one kind.
pub struct Owned<K, F> {
    client: Client,
    records: RwLock<Records<F>>,
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
        Self { client, records: RwLock::new(BTreeMap::new()), kind: std::marker::PhantomData }
    }

    /// The label selector of the watch.
    #[must_use]
    pub fn selector() -> String {
        format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)
    }

    /// Follows the metadata watch. `listed` is called after each complete list, `changed` with namespace, name and the
    /// UID of the controlling object for every change.
    pub async fn follow(
        &self,
        events: impl Stream<Item = Result<Event<PartialObjectMeta<K>>, WatchError>> + Send,
        mut listed: impl FnMut() + Send,
        mut changed: impl FnMut(&str, &str) + Send,
    ) {
        let events = events.default_backoff();
        pin_mut!(events);
        let mut seen: Vec<Key> = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(object)) => {
                    self.note(&object.metadata);
                    notify(&object.metadata, &mut changed);
                }
                Ok(Event::Delete(object)) => {
                    self.forget(&object.metadata);
                    notify(&object.metadata, &mut changed);
                }
                Ok(Event::Init) => seen.clear(),
                Ok(Event::InitApply(object)) => {
                    self.note(&object.metadata);
                    seen.push(key(&object.metadata));
                }
                Ok(Event::InitDone) => {
                    let seen: std::collections::HashSet<Key> = seen.drain(..).collect();
                    let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
                    records.retain(|key, _| seen.contains(key));
                    drop(records);
                    listed();
                }
                Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; it is started again"),
            }
        }
    }

    /// What is known of an object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Record<F>> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects that an owner controls, with namespace and name.
    pub fn owned_by(&self, owner: &str) -> Vec<(Key, Record<F>)> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records
            .iter()
            .filter(|(_, record)| record.owner == owner)
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect()
    }

    /// The objects of one namespace whose names begin with `prefix` and that an owner controls, with their names.
    pub fn owned_with_prefix(&self, namespace: &str, prefix: &str, owner: &str) -> Vec<(String, Record<F>)> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records
            .range((namespace.to_owned(), prefix.to_owned())..)
            .take_while(|((space, name), _)| space == namespace && name.starts_with(prefix))
            .filter(|(_, record)| record.owner == owner)
            .map(|((_, name), record)| (name.clone(), record.clone()))
            .collect()
    }

    /// Creates or updates an object. What exists and belongs to somebody else is left alone.
    ///
    /// # Errors
    /// [`Error::NotOwned`] for an object of somebody else, otherwise what the API server said.
    pub async fn put(&self, object: &K) -> Result<(), Error> {
        let (namespace, name) = key(object.meta());
        let owner = owner(object.meta());
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let doing = |verb: &str| format!("{verb} {} {namespace}/{name}", K::kind(&()));
        let known = match self.get(&namespace, &name) {
            Some(record) => record,
            None => {
                let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false };
                match api.create(&params, object).await {
                    Ok(created) => {
                        self.note(created.meta());
                        return Ok(());
                    }
                    // It exists without our label: ours only if the owner says so.
                    Err(error) if has_code(&error, 409) => {
                        let found = api.get_metadata(&name).await.map_err(Error::api(doing("look up")))?;
                        record(&found.metadata)
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
        object.meta_mut().uid = Some(known.uid);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let answer = api.patch(&name, &params, &Patch::Apply(&object)).await.map_err(Error::api(doing("update")))?;
        self.note(answer.meta());
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
            preconditions: Some(Preconditions { uid: Some(record.uid), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(name, &params).await {
            Err(error) if !has_code(&error, 404) => {
                Err(Error::api(format!("delete {} {namespace}/{name}", K::kind(&())))(error))
            }
            _ => {
                let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
                records.remove(&(namespace.to_owned(), name.to_owned()));
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

    fn note(&self, metadata: &ObjectMeta) {
        let fresh = record(metadata);
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        match records.get(&key(metadata)) {
            // The watch may still be behind our own write.
            Some(known) if known.version > fresh.version => {}
            _ => {
                records.insert(key(metadata), fresh);
            }
        }
    }

    fn forget(&self, metadata: &ObjectMeta) {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let gone = metadata.uid.as_deref().unwrap_or_default();
        if records.get(&key(metadata)).is_some_and(|known| known.uid == gone) {
            records.remove(&key(metadata));
        }
    }
}

fn notify(metadata: &ObjectMeta, changed: &mut impl FnMut(&str, &str)) {
    for owner in metadata.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true)) {
        changed(metadata.namespace.as_deref().unwrap_or_default(), &format!("{}/{}", owner.kind, owner.name));
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn owner(metadata: &ObjectMeta) -> String {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()).unwrap_or_default()
}

fn record<F: Facts>(metadata: &ObjectMeta) -> Record<F> {
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let component = metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT)).cloned().unwrap_or_default();
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    Record {
        version: resource_version(&PartialObjectMeta::<k8s_openapi::api::core::v1::Secret> {
            metadata: metadata.clone(),
            ..PartialObjectMeta::default()
        }),
        uid: metadata.uid.clone().unwrap_or_default(),
        owner: owner(metadata),
        facts: if untouched(entries) { F::read(&annotations) } else { None },
        component,
    }
}

/// Whether nobody but us wrote data or our annotations, and nothing of what we wrote was taken away: the annotation
/// that names the keys and the keys themselves are still ours.
fn untouched(entries: &[ManagedFieldsEntry]) -> bool {
    let fields = |entry: &ManagedFieldsEntry| entry.fields_v1.as_ref().map_or(Value::Null, |fields| fields.0.clone());
    let is_ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
    let foreign = entries.iter().filter(|entry| !is_ours(entry)).map(fields).any(|fields| {
        ["f:data", "f:binaryData"].iter().any(|part| fields.get(part).is_some())
            || annotation_fields(&fields).any(|name| name.starts_with("f:credence.dev/"))
    });
    let held: Vec<String> = entries
        .iter()
        .filter(is_ours)
        .map(fields)
        .flat_map(|fields| fields.get("f:data").and_then(Value::as_object).cloned().unwrap_or_default())
        .map(|(name, _)| name)
        .filter(|name| name != ".")
        .collect();
    !foreign && !held.is_empty()
}

fn annotation_fields(fields: &Value) -> impl Iterator<Item = &String> {
    fields.pointer("/f:metadata/f:annotations").and_then(Value::as_object).into_iter().flat_map(|names| names.keys())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, fields: Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({"manager": manager, "operation": "Apply", "fieldsV1": fields})).unwrap()
    }

    #[test]
    fn what_others_write_beside_our_content_is_their_business() {
        let ours = entry("credence", json!({"f:data": {".": {}, "f:tls.crt": {}}}));
        let label = entry("argocd", json!({"f:metadata": {"f:labels": {"f:team": {}}}}));
        assert!(untouched(&[ours.clone(), label]));
        let data = entry("kubectl-edit", json!({"f:data": {"f:tls.crt": {}}}));
        assert!(!untouched(&[ours.clone(), data]));
        let fact = entry("kubectl-edit", json!({"f:metadata": {"f:annotations": {"f:credence.dev/issued-at": {}}}}));
        assert!(!untouched(&[ours, fact]));
        assert!(!untouched(&[]), "without a record of ownership the content proves nothing");
    }
}

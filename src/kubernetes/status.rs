//! Status: written by server-side apply, only when it changed.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta, Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Resource};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::{Error, has_code};
use super::{FIELD_MANAGER, display_name, uid};

/// The form of an answer without spec and status.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Writes the status of one kind.
///
/// The watch is behind our own writes. The status that was written last is kept until the watch has caught up, so that a
/// reconcile in between neither repeats the write nor loses a transition time. A watch is behind for seconds: what it has not
/// shown after a while is gone, as after a restore of etcd.
pub struct StatusWriter<S> {
    written: Mutex<HashMap<String, Written<S>>>,
}

/// The status that was written last.
struct Written<S> {
    at: Instant,
    version: u64,
    status: S,
}

/// For how long a status is kept that the watch does not show.
const MAX_LAG: Duration = Duration::from_secs(60);

impl<S> Default for StatusWriter<S> {
    fn default() -> Self {
        Self { written: Mutex::new(HashMap::new()) }
    }
}

impl<S: Serialize + PartialEq + Clone + Default> StatusWriter<S> {
    /// The current status: that of the object, or a newer one from our own last write.
    pub fn current<K: Resource>(&self, object: &K, status: Option<&S>) -> S {
        let mut written = self.written.lock();
        let uid = uid(object);
        match written.get(&uid) {
            Some(newer) if newer.version > resource_version(object) && newer.at.elapsed() < MAX_LAG => {
                newer.status.clone()
            }
            _ => {
                written.remove(&uid);
                status.cloned().unwrap_or_default()
            }
        }
    }

    /// Whether an object is as our own last write of its status left it.
    pub fn is_own_write<K: Resource>(&self, object: &K) -> bool {
        self.written.lock().get(&uid(object)).is_some_and(|own| own.version == resource_version(object))
    }

    /// Writes `wanted` if it differs from `current`. Returns whether the object still exists.
    ///
    /// # Errors
    /// The error of the API server. An object that does not exist is not an error.
    pub async fn write<K>(&self, client: &Client, object: &K, current: &S, wanted: &S) -> Result<bool, Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        if current == wanted {
            return Ok(true);
        }
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            // With the UID, the write fails if an object of the same name was created since.
            "metadata": {"uid": uid(object)},
            "status": wanted,
        });
        match patch_status::<K>(client, object.meta(), &patch).await {
            Ok(answer) => {
                let entry = Written { at: Instant::now(), version: resource_version(&answer), status: wanted.clone() };
                self.written.lock().insert(uid(object), entry);
                Ok(true)
            }
            Err(error) if has_code(&error, 404) => Ok(false),
            Err(error) => {
                Err(Error::api(format!("write the status of {} {}", K::kind(&()), display_name(object)))(error))
            }
        }
    }
}

/// Applies a status. Of the answer only the metadata is sent: the object is as large as its owner likes.
async fn patch_status<K: Resource<DynamicType = ()> + DeserializeOwned>(
    client: &Client,
    metadata: &ObjectMeta,
    patch: &Value,
) -> Result<PartialObjectMeta<K>, kube::Error> {
    let request = Request::new(K::url_path(&(), metadata.namespace.as_deref()));
    let (name, params) = (metadata.name.as_deref().unwrap_or_default(), PatchParams::apply(FIELD_MANAGER).force());
    let request = request.patch_subresource("status", name, &params, &Patch::Apply(patch));
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA_ONLY));
    client.request(request).await
}

/// The API of a kind, for its metadata.
fn api<K: Resource<DynamicType = ()>>(client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Adds our finalizer if `present`, otherwise removes it. Returns whether the object still exists.
///
/// # Errors
/// The error of the API server. An object that does not exist is not an error.
pub async fn set_finalizer<K: Resource<DynamicType = ()>>(
    client: &Client,
    object: &K,
    finalizer: &str,
    present: bool,
) -> Result<bool, Error> {
    if has_finalizer(object, finalizer) == present {
        return Ok(true);
    }
    let name = object.meta().name.clone().unwrap_or_default();
    let api = api::<K>(client, object.meta().namespace.as_deref());
    let patch = async {
        // The finalizers of others are not kept in memory.
        let mut finalizers = api.get_metadata(&name).await?.metadata.finalizers.unwrap_or_default();
        finalizers.retain(|known| known != finalizer);
        if present {
            finalizers.push(finalizer.to_owned());
        }
        // With the version, a change since the reconcile began makes the write fail instead of being lost.
        let patch = json!({"metadata": {
            "resourceVersion": object.meta().resource_version,
            "uid": uid(object),
            "finalizers": finalizers,
        }});
        api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    match patch.await {
        Ok(_) => Ok(true),
        Err(error) if has_code(&error, 404) => Ok(false),
        Err(error) => Err(Error::api(format!("set the finalizer of {} {}", K::kind(&()), display_name(object)))(error)),
    }
}

/// Whether the object has our finalizer.
pub fn has_finalizer<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|known| known == finalizer)
}

/// The resource version as a number; Kubernetes promises that versions of one resource can be compared (KEP-5504).
pub fn resource_version<K: Resource>(object: &K) -> u64 {
    version(object.meta())
}

/// See [`resource_version`].
pub(super) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

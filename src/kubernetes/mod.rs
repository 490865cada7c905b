//! What all controllers share: watches, stores, queues, ownership of managed objects, status, events, errors, and the loop that
//! runs a controller. It knows no kind. A controller must not implement any of these itself.

pub(crate) mod answer;
pub mod client;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod guard;
pub mod health;
pub(crate) mod known;
pub mod lease;
pub(crate) mod owned;
mod ownership;
pub(crate) mod queue;
pub(crate) mod run;
pub mod scope;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod watch;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use crate::api::Kind;
use crate::contract::component::{COMPONENT, Component, FOR, MANAGED_BY, OWNER};
use crate::domain::name::Name;

/// Field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "credence";

/// Metadata of an object that `owner` controls.
pub fn owned_metadata<K: Resource<DynamicType = ()>>(
    owner: &K,
    namespace: &str,
    name: &str,
    component: Component,
    annotations: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([
            (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
            (COMPONENT.to_owned(), component.as_str().to_owned()),
        ])),
        annotations: Some(annotations),
        owner_references: owner.controller_owner_ref(&()).map(|reference: OwnerReference| vec![reference]),
        ..ObjectMeta::default()
    }
}

/// Metadata of an object that is written for an owner and must outlive a request to delete it: the operator deletes it when the
/// owner goes.
pub fn kept_metadata<K: Kind>(
    owner: &K,
    namespace: &str,
    name: &str,
    component: Component,
    annotations: BTreeMap<String, String>,
) -> ObjectMeta {
    let mut metadata = owned_metadata(owner, namespace, name, component, annotations);
    metadata.owner_references = None;
    metadata.annotations.get_or_insert_default().extend(kept_for(owner));
    metadata
}

/// The annotations that say whom an object was written for.
pub fn kept_for<K: Kind>(owner: &K) -> BTreeMap<String, String> {
    let name = Name::of(owner);
    let kept_for = format!("{}/{}/{}", K::KIND, name.namespace, name.name);
    BTreeMap::from([(FOR.to_owned(), kept_for), (OWNER.to_owned(), uid(owner))])
}

/// The name of an object in messages: `namespace/name`, or the name alone for cluster-scoped objects.
pub fn display_name<K: Resource>(object: &K) -> String {
    let name = object.meta().name.as_deref().unwrap_or_default();
    object.meta().namespace.as_deref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// The UID of an object.
pub fn uid<K: Resource>(object: &K) -> String {
    object.meta().uid.clone().unwrap_or_default()
}

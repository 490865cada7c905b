//! Objects as the API server returns them. An object that does not match its schema must not stop the watch: if the parser failed
//! in the middle of an object, the rest of the list would be lost. Nor may one object take much memory: of its metadata only what
//! the operator uses is read, whatever else its owner has written there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::{RawValue, to_raw_value};
use thiserror::Error;

/// How many labels of an object are kept: the first by name.
const MAX_LABELS: usize = 64;
/// What the names of our annotations and finalizers begin with. Those of others are not kept.
const PREFIX: &str = "credence.dev/";
/// The longest value of an annotation that is kept, in bytes.
const MAX_ANNOTATION: usize = 16 << 10;

/// An object as it was written, of which only the metadata is read yet.
#[derive(Clone, Debug)]
pub struct Guarded<K> {
    metadata: ObjectMeta,
    /// All other fields.
    fields: BTreeMap<String, Box<RawValue>>,
    kind: PhantomData<fn() -> K>,
}

/// What in an object does not match its schema, in the words of the parser, which quotes values: for the log only. Clones share the
/// text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SchemaError(Arc<str>);

impl SchemaError {
    /// From the error of a parser.
    pub(super) fn new(error: &impl fmt::Display) -> Self {
        Self(error.to_string().into())
    }
}

impl<K: DeserializeOwned> Guarded<K> {
    /// How long its text is, in bytes.
    pub(super) fn length(&self) -> usize {
        self.fields.values().map(|value| value.get().len()).sum()
    }

    /// Reads it.
    ///
    /// # Errors
    /// What does not match its schema.
    pub(super) fn read(self) -> Result<K, SchemaError> {
        let metadata = to_raw_value(&self.metadata).map_err(|error| SchemaError::new(&error))?;
        let fields =
            self.fields.iter().map(|(name, value)| (name.as_str(), &**value)).chain([("metadata", &*metadata)]);
        let read: Result<K, serde_json::Error> = K::deserialize(MapDeserializer::new(fields));
        read.map_err(|error| SchemaError::new(&error))
    }
}

impl<'de, K> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The parser of the client skips a raw value of any depth.
        let mut fields = BTreeMap::<String, Box<RawValue>>::deserialize(deserializer)?;
        let metadata = fields.remove("metadata");
        let metadata = metadata_of(metadata.as_ref().map_or("{}", |text| text.get())).map_err(D::Error::custom)?;
        Ok(Self { metadata, fields, kind: PhantomData })
    }
}

fn metadata_of(text: &str) -> Result<ObjectMeta, serde_json::Error> {
    let mut fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)?;
    // As large as the object may be, and as deep.
    fields.remove("managedFields");
    let read: Result<ObjectMeta, serde_json::Error> = ObjectMeta::deserialize(MapDeserializer::new(fields.into_iter()));
    let mut metadata = read?;
    trim(&mut metadata);
    Ok(metadata)
}

/// Drops metadata that no decision uses, and that its owner can make large: annotations, finalizers and owners of others, the record
/// of who wrote which field, and very many labels.
pub(super) fn trim(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.owner_references = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, value| name.starts_with(PREFIX) && value.len() <= MAX_ANNOTATION);
    }
    if let Some(finalizers) = &mut metadata.finalizers {
        finalizers.retain(|name| name.starts_with(PREFIX));
    }
    if let Some(labels) = &mut metadata.labels {
        let mut kept = 0..MAX_LABELS;
        labels.retain(|_, _| kept.next().is_some());
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{DynamicObject, ObjectList, WatchEvent};
    use serde_json::json;

    use super::*;

    fn object(name: &str, data: &str) -> String {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{data}}}"#)
    }

    fn nested(levels: usize) -> String {
        format!(r#"{}"x"{}"#, r#"{"a":["#.repeat(levels / 2), "]}".repeat(levels / 2))
    }

    #[test]
    fn an_unreadable_object_does_not_affect_others() {
        let deep = object("deep", &nested(5000));
        assert!(serde_json::from_str::<DynamicObject>(&deep).is_err(), "otherwise this test shows nothing");
        let objects = [object("wrong", "7"), deep.clone(), object("right", r#"{"a":"b"}"#)].join(",");
        let list = format!(r#"{{"apiVersion":"v1","kind":"ConfigMapList","metadata":{{}},"items":[{objects}]}}"#);
        let list: ObjectList<Guarded<ConfigMap>> = serde_json::from_str(&list).unwrap();
        let names: Vec<_> = list.items.iter().map(|it| it.meta().name.as_deref().unwrap()).collect();
        assert_eq!(names, ["wrong", "deep", "right"]);
        let [wrong, deep_one, right] = list.items.try_into().unwrap();
        assert!(wrong.read().is_err());
        assert!(deep_one.read().is_err(), "its data is not that of a ConfigMap");
        assert_eq!(right.read().unwrap().data.unwrap()["a"], "b");
        let event = format!(r#"{{"type":"ADDED","object":{deep}}}"#);
        let event: WatchEvent<Guarded<ConfigMap>> = serde_json::from_str(&event).unwrap();
        assert!(matches!(event, WatchEvent::Added(it) if it.meta().name.as_deref() == Some("deep")));
    }

    /// Annotations, finalizers and labels without number, and a record of fields as deep as the object.
    #[test]
    fn metadata_of_others_is_not_kept() {
        let labels: BTreeMap<String, String> = (0..1000).map(|it| (format!("l{it}"), "x".repeat(63))).collect();
        let annotations =
            json!({"credence.dev/for": "us", "credence.dev/long": "x".repeat(20_000), "other": "x".repeat(200_000)});
        let finalizers = json!(["other/keep", "credence.dev/withdraw-route"]);
        let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"}]);
        let metadata = json!({"name": "x", "labels": labels, "annotations": annotations, "finalizers": finalizers,
            "ownerReferences": owners})
        .to_string();
        let managed = format!(r#""managedFields":[{{"manager":"x","fieldsV1":{}}}]"#, nested(5000));
        let text = format!(r#"{{"metadata":{},{managed}}},"data":{{"a":"b"}}}}"#, &metadata[..metadata.len() - 1]);
        let read = serde_json::from_str::<Guarded<ConfigMap>>(&text).unwrap().read().unwrap();
        assert_eq!(read.data.unwrap()["a"], "b");
        assert_eq!(read.metadata.labels.as_ref().unwrap().len(), MAX_LABELS);
        assert_eq!(read.metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["credence.dev/for"]);
        assert_eq!(read.metadata.finalizers.as_ref().unwrap(), &["credence.dev/withdraw-route"]);
        assert!(serde_json::to_vec(&read.metadata).unwrap().len() < 8 << 10);
    }
}

//! Objects as the API server returns them. An object that does not match its schema must not stop the watch: if the parser failed
//! in the middle of an object, the rest of the list would be lost.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use thiserror::Error;

/// How many levels of an object are read. The JSON parser of the client fails at 128, levels of lists and events included, while
/// the API server accepts thousands where a schema allows any fields.
pub const MAX_DEPTH: usize = 64;

/// An object, or its metadata when it does not match its schema.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// An object that does not match its schema.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// What does not match.
    pub error: SchemaError,
    /// The metadata of the object.
    pub metadata: ObjectMeta,
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

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Level(MAX_DEPTH).deserialize(deserializer)?;
        match K::deserialize(&object) {
            Ok(read) => Ok(Self(Ok(read))),
            Err(error) => {
                let error = SchemaError::new(&error);
                let metadata = ObjectMeta::deserialize(&object["metadata"]).map_err(D::Error::custom)?;
                Ok(Self(Err(Unreadable { error, metadata })))
            }
        }
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
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

/// Reads a value down to some level. Deeper values are skipped, which needs no stack, and become null.
#[derive(Clone, Copy)]
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            0 => IgnoredAny::deserialize(deserializer).map(|_| Value::Null),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element_seed(Level(self.0 - 1))? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            read.insert(name, fields.next_value_seed(Level(self.0 - 1))?);
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{DynamicObject, ObjectList, WatchEvent};

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
        assert!(list.items[0].0.is_err());
        assert!(list.items[1].0.is_err(), "its data is not that of a ConfigMap");
        assert_eq!(list.items[2].0.as_ref().unwrap().data.as_ref().unwrap()["a"], "b");
        let event = format!(r#"{{"type":"ADDED","object":{deep}}}"#);
        let event: WatchEvent<Guarded<ConfigMap>> = serde_json::from_str(&event).unwrap();
        assert!(matches!(event, WatchEvent::Added(it) if it.meta().name.as_deref() == Some("deep")));
    }

    #[test]
    fn only_levels_that_are_too_deep_are_cut_off() {
        let deep = serde_json::from_str::<Guarded<DynamicObject>>(&object("deep", &nested(5000))).unwrap();
        assert_eq!(deep.0.unwrap().data["data"].to_string(), nested(62).replace("\"x\"", r#"{"a":null}"#));
        let text = object("x", &format!(r#"[{},1,-1,1.5,true,null,"\n"]"#, nested(60)));
        let Guarded(read) = serde_json::from_str::<Guarded<Value>>(&text).unwrap();
        assert_eq!(read.unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }
}

//! The template of an object: any fields of any kind, as far as they fit. It is the one field of all kinds whose schema allows
//! anything, so it is read with a limit: while it is read, and as it is kept.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use kube::KubeSchema;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// An object without name and namespace. Its `metadata` may contain labels and annotations only.
///
/// The fields are kept as JSON text: a value in memory takes up to a hundred times as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectTemplate {
    /// Group and version, such as `batch/v1`.
    pub api_version: String,
    /// Kind, such as `Job`.
    pub kind: String,
    /// All other fields of the kind, as a JSON object.
    rest: String,
}

impl ObjectTemplate {
    /// Maximum length as JSON, in bytes.
    pub const MAX_LENGTH: usize = 64 << 10;
    /// How many levels are read. Deeper values become null.
    const MAX_DEPTH: usize = 64;

    /// Whether it is longer than [`Self::MAX_LENGTH`]. Nothing is kept of such a template, and it has no kind.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.kind.is_empty()
    }

    fn too_long() -> Self {
        Self { api_version: String::new(), kind: String::new(), rest: "{}".to_owned() }
    }
}

/// The schema of [`ObjectTemplate`].
#[derive(Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) struct ObjectTemplateSchema {
    /// Group and version, such as `batch/v1`.
    #[schemars(
        length(max = 317),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    api_version: String,
    /// Kind, such as `Job`.
    #[schemars(length(max = 63), regex(pattern = r"^[A-Za-z][A-Za-z0-9]*$"))]
    kind: String,
    /// All other fields of the kind.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Serialize for ObjectTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rest: BTreeMap<String, &RawValue> = serde_json::from_str(&self.rest).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(Some(rest.len() + 2))?;
        map.serialize_entry("apiVersion", &self.api_version)?;
        map.serialize_entry("kind", &self.kind)?;
        rest.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ObjectTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(Self::MAX_LENGTH + 1);
        let read = Limited { left: &left, depth: Self::MAX_DEPTH }.deserialize(deserializer)?;
        if left.get() == 0 {
            return Ok(Self::too_long());
        }
        let Value::Object(mut rest) = read else { return Err(D::Error::custom("a template is an object")) };
        let mut text = |name: &'static str| match rest.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(D::Error::missing_field(name)),
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        Ok(Self { api_version, kind, rest: Value::Object(rest).to_string() })
    }
}

/// Reads a value as long as something is left of the length that it may have as JSON, and skips the rest.
#[derive(Clone, Copy)]
struct Limited<'a> {
    left: &'a Cell<usize>,
    depth: usize,
}

impl Limited<'_> {
    /// Whether there is room for this many bytes more.
    fn takes(self, bytes: usize) -> bool {
        self.left.set(self.left.get().saturating_sub(bytes));
        self.left.get() > 0
    }

    fn value(self, value: impl Into<Value>, bytes: usize) -> Value {
        if self.takes(bytes) { value.into() } else { Value::Null }
    }

    fn below(self) -> Self {
        Self { depth: self.depth - 1, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Limited<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth == 0 || self.left.get() == 0 {
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Limited<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(self.value((), 4))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(self.value(value, 4))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.value(value, 1))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.value(value, 1))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(self.value(value, 1))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.value(value, value.len() + 2))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element_seed(self.below())? {
            if self.takes(1) {
                read.push(item);
            }
        }
        Ok(self.value(read, 1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(self.below())?;
            if self.takes(name.len() + 4) {
                read.insert(name, value);
            }
        }
        Ok(self.value(read, 1))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> ObjectTemplate {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn a_template_keeps_its_stored_form() {
        let stored = r#"{"apiVersion":"batch/v1","kind":"Job","a":{"":[1,-1,1.5,true,null,"\n"]},"spec":{"x":"y"}}"#;
        let template: ObjectTemplate = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&template).unwrap(), stored);
        assert_eq!(serde_json::to_value(&template).unwrap(), serde_json::from_str::<Value>(stored).unwrap());
        assert_eq!(serde_json::from_value::<ObjectTemplate>(serde_json::from_str(stored).unwrap()).unwrap(), template);
    }

    /// Whatever it is long with, and wherever `kind` stands.
    #[test]
    fn of_a_template_that_is_too_long_nothing_is_kept() {
        let long = ObjectTemplate::MAX_LENGTH;
        let many: Vec<String> = (0..100_000).map(|it| it.to_string()).collect();
        for rest in [
            json!("x".repeat(long)),
            json!(many),
            json!(vec![0; long]),
            json!(vec![json!({}); long / 2]),
            json!({"k".repeat(long): 0}),
        ] {
            let template = read(&json!({"apiVersion": "v1", "kind": "ConfigMap", "aaa": rest}));
            assert!(template.is_too_long() && template == ObjectTemplate::too_long());
            let again = read(&serde_json::to_value(&template).unwrap());
            assert!(again.is_too_long(), "also when it was packed meanwhile");
        }
    }

    #[test]
    fn a_template_of_the_greatest_length_is_kept() {
        let around = read(&json!({"apiVersion": "v1", "kind": "ConfigMap", "x": ""}));
        let room = ObjectTemplate::MAX_LENGTH - serde_json::to_string(&around).unwrap().len();
        let text = read(&json!({"apiVersion": "v1", "kind": "ConfigMap", "x": "x".repeat(room)}));
        assert!(!text.is_too_long());
        let numbers = read(&json!({"apiVersion": "v1", "kind": "ConfigMap", "x": vec![0; room / 2]}));
        assert!(!numbers.is_too_long() && numbers.rest.len() > room - 8);
    }

    #[test]
    fn only_levels_that_are_too_deep_are_cut_off() {
        let nested = |levels: usize| format!(r#"{}"x"{}"#, r#"{"a":["#.repeat(levels / 2), "]}".repeat(levels / 2));
        let deep = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","data":{}}}"#, nested(5000));
        let template: ObjectTemplate = serde_json::from_str(&deep).unwrap();
        assert_eq!(template.rest, format!(r#"{{"data":{}}}"#, nested(62).replace("\"x\"", r#"{"a":null}"#)));
    }
}

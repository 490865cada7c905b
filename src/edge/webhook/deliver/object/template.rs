//! The template of an object: what it may contain, and how placeholders are replaced. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use thiserror::Error;

use super::super::delivery::Delivery;
use crate::api::ObjectTemplate;
use crate::domain::identity::hex;
use crate::edge::webhook::outcome::Reason;

/// Maximum depth of a template: its readers have limits of their own.
const MAX_DEPTH: usize = 32;
/// Maximum length of a body that goes into an object, in bytes.
pub const MAX_BODY: usize = 32 << 10;
/// Maximum number of placeholders: each may be replaced by a body, and the API server accepts about a megabyte.
const MAX_PLACEHOLDERS: usize = 16;

/// The beginning of every placeholder.
const OPENING: &str = "$(delivery.";
const ID: &str = "$(delivery.id)";
const BODY: &str = "$(delivery.body)";
const BODY_BASE64: &str = "$(delivery.bodyBase64)";
const ENDPOINT: &str = "$(delivery.endpoint)";
const ASSERTION: &str = "$(delivery.assertion)";
const PLACEHOLDERS: [&str; 5] = [ID, BODY, BODY_BASE64, ENDPOINT, ASSERTION];

/// Why a template cannot be used, with what to write instead.
#[derive(Debug, Error)]
pub enum InvalidTemplate {
    /// It cannot be expressed as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is longer than the limit.
    #[error("it is longer than 64 KiB")]
    TooLong,
    /// It is nested deeper than the limit.
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It has more placeholders than the limit.
    #[error("there are more than {MAX_PLACEHOLDERS} placeholders in it")]
    TooManyPlaceholders,
    /// A text contains a placeholder, or something like one, where none is replaced.
    #[error("{0} cannot stand there; a value that is one of {all} as a whole is filled in", all = PLACEHOLDERS.join(", "))]
    Placeholder(String),
    /// Metadata or annotations are not maps.
    #[error("metadata and metadata.annotations must be maps")]
    NotMaps,
    /// It sets metadata that the edge sets.
    #[error(
        "remove metadata.{0}: an object has labels and annotations of its template, a name made from the delivery, and the \
         namespace of its endpoint"
    )]
    ForbiddenField(String),
}

/// A checked template.
pub struct Template {
    object: Value,
    wants_text: bool,
    /// Whether the object contains the body, as text or as base64.
    pub wants_body: bool,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Says what is wrong, and what to write instead.
    pub fn compile(template: &ObjectTemplate) -> Result<Self, InvalidTemplate> {
        if template.is_too_long() {
            return Err(InvalidTemplate::TooLong);
        }
        let object = serde_json::to_value(template)?;
        if object.to_string().len() > ObjectTemplate::MAX_LENGTH {
            return Err(InvalidTemplate::TooLong);
        }
        check_metadata(&object["metadata"])?;
        let mut found = Vec::new();
        find(&object, MAX_DEPTH, &mut found)?;
        if found.len() > MAX_PLACEHOLDERS {
            return Err(InvalidTemplate::TooManyPlaceholders);
        }
        let wants_text = found.contains(&BODY);
        Ok(Self { wants_text, wants_body: wants_text || found.contains(&BODY_BASE64), object })
    }

    /// The object of a delivery. What replaces a placeholder is a string and stays one: placeholders in it are not replaced.
    ///
    /// # Errors
    /// When the object contains the body as text, and the body is not UTF-8.
    pub fn fill(&self, name: &str, namespace: &str, delivery: &Delivery) -> Result<Value, Reason> {
        let text = if self.wants_text { std::str::from_utf8(&delivery.body) } else { Ok("") };
        let text = text.map_err(|_| Reason::BodyNotText)?;
        let encoded = if self.wants_body { STANDARD.encode(&delivery.body) } else { String::new() };
        let values = PLACEHOLDERS.map(|placeholder| {
            let value = match placeholder {
                ID => &delivery.id,
                BODY => text,
                BODY_BASE64 => &encoded,
                ENDPOINT => &delivery.endpoint,
                _ => &delivery.assertion,
            };
            (placeholder, value)
        });
        let mut object = self.object.clone();
        put(&mut object, &values);
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(namespace);
        let annotations = &mut metadata["annotations"];
        annotations["credence.dev/delivery-id"] = json!(delivery.id);
        annotations["credence.dev/body-sha256"] = json!(hex(&delivery.body_sha256));
        annotations["credence.dev/endpoint"] = json!(delivery.endpoint);
        Ok(object)
    }
}

/// Refuses metadata that the edge sets itself: name, namespace and owner.
fn check_metadata(metadata: &Value) -> Result<(), InvalidTemplate> {
    let is_map = |value: &Value| value.is_null() || value.is_object();
    if !is_map(metadata) || !is_map(&metadata["annotations"]) {
        return Err(InvalidTemplate::NotMaps);
    }
    let mut fields = metadata.as_object().into_iter().flat_map(|metadata| metadata.keys());
    match fields.find(|field| !["labels", "annotations"].contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => Err(InvalidTemplate::ForbiddenField(field.clone())),
    }
}

/// Finds all placeholders, and refuses texts that only contain one.
fn find(value: &Value, levels: usize, found: &mut Vec<&'static str>) -> Result<(), InvalidTemplate> {
    let below = levels.checked_sub(1).ok_or(InvalidTemplate::TooDeep)?;
    match value {
        Value::String(text) => match PLACEHOLDERS.iter().find(|placeholder| *placeholder == text) {
            Some(placeholder) => found.push(placeholder),
            None => refuse_placeholder(text)?,
        },
        Value::Array(items) => items.iter().try_for_each(|item| find(item, below, found))?,
        Value::Object(fields) => {
            for (key, value) in fields {
                refuse_placeholder(key)?;
                find(value, below, found)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn refuse_placeholder(text: &str) -> Result<(), InvalidTemplate> {
    let Some(start) = text.find(OPENING) else { return Ok(()) };
    let end = text[start..].find(')').map_or(text.len(), |length| start + length + 1);
    let shown: String = text[start..end].chars().take(64).collect();
    Err(InvalidTemplate::Placeholder(shown))
}

fn put(value: &mut Value, values: &[(&str, &str)]) {
    match value {
        Value::String(text) => {
            if let Some((_, value)) = values.iter().find(|(placeholder, _)| placeholder == text) {
                (*value).clone_into(text);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| put(item, values)),
        Value::Object(fields) => fields.values_mut().for_each(|field| put(field, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn compile(template: Value) -> Result<Template, String> {
        Template::compile(&serde_json::from_value(template).unwrap()).map_err(|error| error.to_string())
    }

    fn config_map(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data})
    }

    fn delivery(body: &'static [u8]) -> Delivery {
        Delivery {
            headers: HeaderMap::new(),
            identity: [7; 32],
            endpoint: "shop/payments".into(),
            id: "$(delivery.body)".into(),
            assertion: "a.b.c".into(),
            body_sha256: [0xab; 32],
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn what_is_filled_in_is_never_looked_at() {
        let body = "\"},\n$(delivery.id) $(delivery.assertion) \u{1}é";
        let data = json!({"id": ID, "body": BODY, "list": [BODY_BASE64, ENDPOINT, ASSERTION, 1, null]});
        let filled = compile(config_map(data)).unwrap().fill("x", "shop", &delivery(body.as_bytes())).unwrap();
        let wanted = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "x",
                "namespace": "shop",
                "annotations": {
                    "credence.dev/delivery-id": "$(delivery.body)",
                    "credence.dev/body-sha256": "ab".repeat(32),
                    "credence.dev/endpoint": "shop/payments",
                },
            },
            "data": {
                "id": "$(delivery.body)",
                "body": body,
                "list": [STANDARD.encode(body), "shop/payments", "a.b.c", 1, null],
            },
        });
        assert_eq!(filled, wanted);
    }

    #[test]
    fn a_body_that_is_no_text_is_only_for_base64() {
        let text = compile(config_map(json!({"body": BODY}))).unwrap();
        assert_eq!(text.fill("x", "shop", &delivery(b"\xff")), Err(Reason::BodyNotText));
        let encoded = compile(config_map(json!({"body": BODY_BASE64}))).unwrap();
        assert_eq!(encoded.fill("x", "shop", &delivery(b"\xff")).unwrap()["data"]["body"], "/w==");
        assert!(text.wants_body && encoded.wants_body && !compile(config_map(json!({"id": ID}))).unwrap().wants_body);
    }

    #[test]
    fn a_placeholder_is_a_whole_value_or_an_error() {
        for (data, says) in [
            (json!({"x": "$(delivery.secret)"}), "$(delivery.secret)"),
            (json!({"x": "id: $(delivery.id)"}), "$(delivery.id)"),
            (json!({"x": ["$(delivery.body"]}), "$(delivery.body"),
            (json!({"$(delivery.id)": "x"}), "$(delivery.id)"),
            (json!({"x": vec![ID; 17]}), "16 placeholders"),
            (json!({"x": "x".repeat(ObjectTemplate::MAX_LENGTH)}), "64 KiB"),
            ((0..MAX_DEPTH).fold(json!("x"), |inner, _| json!([inner])), "32 levels"),
        ] {
            let why = compile(config_map(data.clone())).err().unwrap_or_else(|| panic!("compiled: {data:.99}"));
            assert!(why.contains(says), "{why}");
        }
        assert!(compile(config_map(json!({"x": "$(HOME) and $(delivery"}))).is_ok());
    }

    #[test]
    fn a_template_says_neither_name_nor_namespace_nor_owner() {
        let with = |metadata: Value| compile(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
        for field in ["name", "generateName", "namespace", "ownerReferences", "finalizers", "uid"] {
            assert!(with(json!({field: "x"})).is_err_and(|why| why.contains(field)), "{field}");
        }
        for wrong in [json!("x"), json!([]), json!({"annotations": "x"})] {
            assert!(with(wrong.clone()).is_err_and(|why| why.contains("maps")), "{wrong}");
        }
        let kept = with(json!({"labels": {"a": "b"}, "annotations": {"credence.dev/endpoint": "x", "c": ID}})).unwrap();
        let metadata = kept.fill("x", "shop", &delivery(b"")).unwrap()["metadata"].clone();
        assert_eq!((&metadata["labels"]["a"], &metadata["annotations"]["c"]), (&json!("b"), &json!(BODY)));
        assert_eq!(metadata["annotations"]["credence.dev/endpoint"], "shop/payments");
    }
}

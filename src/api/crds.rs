//! The CRD manifests as the API server should get them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::KindName;

/// All CRDs as `(file name, manifest)`, ready to be written to `crds/`.
///
/// # Errors
/// When a schema cannot be expressed as JSON, which a test rules out.
pub fn crds() -> Result<Vec<(String, Value)>, serde_json::Error> {
    KindName::ALL
        .iter()
        .map(|kind| {
            let crd = kind.crd();
            Ok((format!("{}.yaml", crd.spec.names.plural), manifest(&crd)?))
        })
        .collect()
}

fn manifest(crd: &CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    value["metadata"]["annotations"] = serde_json::json!({
        // Deleting a release must not delete every identity and every policy with it.
        "helm.sh/resource-policy": "keep",
    });
    tidy(&mut value);
    Ok(value)
}

/// Removes what the generator adds and Kubernetes has no use for: unsigned formats (unknown to the API server, which
/// warns) and `nullable` (an absent field says the same, and `null` in Git would read as drift).
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            if fields.get("nullable").is_some_and(Value::is_boolean) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

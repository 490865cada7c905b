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
    if crd.spec.scope == "Namespaced" {
        bound_selectors(&mut value);
    }
    Ok(value)
}

/// Sets limits for the label selectors of kinds that tenants write. Their schema is that of Kubernetes, and has none.
fn bound_selectors(value: &mut Value) {
    if let Some(selector) = value.get_mut("properties").filter(|it| it.get("matchExpressions").is_some()) {
        let labels = &mut selector["matchLabels"];
        labels["maxProperties"] = 32.into();
        labels["additionalProperties"]["maxLength"] = 63.into();
        let expressions = &mut selector["matchExpressions"];
        expressions["maxItems"] = 16.into();
        let fields = &mut expressions["items"]["properties"];
        fields["key"]["maxLength"] = 317.into();
        fields["operator"]["maxLength"] = 16.into();
        fields["values"]["maxItems"] = 64.into();
        fields["values"]["items"]["maxLength"] = 63.into();
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(bound_selectors),
        Value::Array(items) => items.iter_mut().for_each(bound_selectors),
        _ => {}
    }
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

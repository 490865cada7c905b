//! Whether another writer changed a managed object, according to the field ownership that the API server records. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::FIELD_MANAGER;
use crate::domain::altered::AlteredBy;

/// Checks that we still own every entry of `data` and every annotation that we wrote: a writer that changes a field becomes its
/// owner. Fields that others add are not checked.
///
/// # Errors
/// The writer that changed one.
pub fn unaltered<'a>(
    managers: &[ManagedFieldsEntry],
    data: &[&str],
    annotations: impl Iterator<Item = &'a str>,
) -> Result<(), AlteredBy> {
    let paths: Vec<[String; 3]> = data
        .iter()
        .map(|name| ["f:data".to_owned(), format!("f:{name}"), String::new()])
        .chain(annotations.map(|name| ["f:metadata".to_owned(), "f:annotations".to_owned(), format!("f:{name}")]))
        .collect();
    let has = |entry: &ManagedFieldsEntry, path: &[String; 3]| {
        let mut parts = path.iter().filter(|part| !part.is_empty());
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        parts.try_fold(fields, |fields, part| fields.map(|fields| fields.get(part))).flatten().is_some()
    };
    let is_ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
    let lost = paths.iter().find(|path| !managers.iter().filter(is_ours).any(|entry| has(entry, path)));
    let Some(path) = lost else { return Ok(()) };
    let owner = managers.iter().filter(|entry| !is_ours(entry)).find(|entry| has(entry, path));
    Err(owner.and_then(|entry| entry.manager.clone()).map_or(AlteredBy::RemovedField, AlteredBy::Manager))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(manager: &str, fields: Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({"manager": manager, "operation": "Apply", "fieldsV1": fields})).unwrap()
    }

    #[test]
    fn only_changes_of_our_own_fields_count() {
        let check = |entries: &[ManagedFieldsEntry]| {
            unaltered(entries, &["tls.crt", "tls.key"], std::iter::once("credence.dev/issued-at"))
        };
        let annotation = json!({"f:annotations": {"f:credence.dev/issued-at": {}}});
        let ours =
            entry("credence", json!({"f:data": {".": {}, "f:tls.crt": {}, "f:tls.key": {}}, "f:metadata": annotation}));
        let label = entry("argocd", json!({"f:metadata": {"f:labels": {"f:team": {}}}}));
        let more = entry("kubectl-edit", json!({"f:data": {"f:notes": {}}}));
        assert_eq!(check(&[ours.clone(), label, more]), Ok(()));
        let left = entry("credence", json!({"f:data": {"f:tls.key": {}}, "f:metadata": annotation}));
        let taken = entry("kubectl-edit", json!({"f:data": {"f:tls.crt": {}}}));
        assert_eq!(check(&[left, taken]), Err(AlteredBy::Manager("kubectl-edit".to_owned())));
        let left = entry("credence", json!({"f:data": {"f:tls.crt": {}, "f:tls.key": {}}}));
        let taken = entry("kubectl-annotate", json!({"f:metadata": annotation}));
        assert_eq!(check(&[left, taken]), Err(AlteredBy::Manager("kubectl-annotate".to_owned())));
        assert_eq!(check(&[]), Err(AlteredBy::RemovedField), "without recorded ownership the content is not trusted");
    }
}

//! Since when the operator keeps records of its own. What is older may have been applied before there were any.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::contract::component::{COMPONENT, Component, MANAGED_BY};
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::error::Error;

/// The ConfigMap that is made when records are first kept. Its creation time is what counts.
const NAME: &str = "credence-records";

/// Since when records are kept: since now, if there are none.
///
/// # Errors
/// What the API server answered.
pub async fn records_since(client: &Client, namespace: &str) -> Result<Timestamp, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = api.get_metadata_opt(NAME).await.map_err(Error::api(format!("read the ConfigMap {NAME}")))?;
    let metadata = match found {
        Some(found) => found.metadata,
        None => {
            let labels = [MANAGED_BY, (COMPONENT, Component::Records.as_str())];
            let labels = BTreeMap::from(labels.map(|(label, value)| (label.to_owned(), value.to_owned())));
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false };
            let first = ConfigMap { metadata, ..ConfigMap::default() };
            let created = api.create(&params, &first).await;
            created.map_err(Error::api(format!("create the ConfigMap {NAME}")))?.metadata
        }
    };
    Ok(metadata.creation_timestamp.map(|time| time.0).unwrap_or_default())
}

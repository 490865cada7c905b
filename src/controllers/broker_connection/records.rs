//! Stores what was applied to a broker, in ConfigMaps of the operator's namespace: no tenant can write them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;

use crate::api::Reason;
use crate::brokers::BrokerFailure;
use crate::brokers::records::{RecordStore, Shard, Stored};
use crate::contract::component::{COMPONENT, Component, MANAGED_BY};
use crate::domain::defect;
use crate::kubernetes::error::has_code;
use crate::kubernetes::{FIELD_MANAGER, answer};
use crate::stalls::by_length;

/// Label with the name of the `BrokerConnection`.
const BROKER: &str = "credence.dev/broker";
/// The entry of a ConfigMap that holds a shard.
const ENTRY: &str = "records.json";
/// How many shards are read at once.
const PAGE: u32 = 8;

/// The records of one broker.
#[derive(Clone)]
pub struct ConfigMapRecords {
    api: Api<ConfigMap>,
    broker: String,
    since: Timestamp,
    /// The resource versions of the shards as they were read or written last: whoever writes a shard has seen the last one.
    versions: Arc<Mutex<HashMap<u32, String>>>,
}

impl ConfigMapRecords {
    /// The records of the broker of this connection.
    pub fn new(client: Client, namespace: &str, broker: &str, since: Timestamp) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, broker: broker.to_owned(), since, versions: Arc::default() }
    }

    fn name(&self, number: u32) -> String {
        format!("broker-records.{}.{number}", self.broker)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let labels = [
            (MANAGED_BY.0, MANAGED_BY.1),
            (COMPONENT, Component::BrokerRecords.as_str()),
            (BROKER, self.broker.as_str()),
        ];
        labels.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect()
    }

    /// What lists the shards, with as many in a page as are decoded in a millisecond or two.
    fn list_params(&self) -> ListParams {
        let selector = format!("{COMPONENT}={},{BROKER}={}", Component::BrokerRecords, self.broker);
        ListParams::default().labels(&selector).limit(PAGE)
    }

    /// Drops all records: nothing of this broker is managed any more.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn drop_all(&self) -> Result<(), BrokerFailure> {
        let everything = ListParams { limit: None, ..self.list_params() };
        let listed = self.api.list_metadata(&everything).await.map_err(|error| self.failure("read", &error))?;
        for shard in listed {
            let name = shard.metadata.name.unwrap_or_default();
            match self.api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !has_code(&error, 404) => return Err(self.failure("delete", &error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn failure(&self, verb: &str, error: &kube::Error) -> BrokerFailure {
        let message = format!("cannot {verb} the records of the broker {}: {}", self.broker, answer::describe(error));
        BrokerFailure { reason: Reason::BrokerNotReady, message }
    }

    fn unreadable(&self, name: &str, error: &serde_json::Error) -> BrokerFailure {
        let message = format!(
            "the ConfigMap {name} with records of the broker {} cannot be read: {}; restore it from a backup",
            self.broker,
            defect::of_json(error)
        );
        BrokerFailure { reason: Reason::BrokerNotReady, message }
    }
}

impl RecordStore for ConfigMapRecords {
    async fn load(&self) -> Result<Stored, BrokerFailure> {
        let (mut shards, mut versions) = (BTreeMap::new(), HashMap::new());
        let mut page = self.list_params();
        loop {
            let listed = self.api.list(&page).await.map_err(|error| self.failure("read", &error))?;
            for ConfigMap { metadata, data, .. } in listed.items {
                let name = metadata.name.unwrap_or_default();
                let number = name.rsplit_once('.').and_then(|(_, number)| number.parse::<u32>().ok());
                let Some(number) = number.filter(|number| self.name(*number) == name) else { continue };
                let text = data.unwrap_or_default().remove(ENTRY).unwrap_or_default();
                let read = by_length(text.len(), move || serde_json::from_str(&text)).await;
                let shard: Shard = read.map_err(|error| self.unreadable(&name, &error))?;
                shards.insert(number, shard);
                versions.insert(number, metadata.resource_version.unwrap_or_default());
            }
            let Some(next) = listed.metadata.continue_.filter(|token| !token.is_empty()) else { break };
            page = page.continue_token(&next);
        }
        *self.versions.lock() = versions;
        Ok(Stored { shards, imports_until: self.since })
    }

    async fn save(&self, number: u32, shard: &Shard) -> Result<(), BrokerFailure> {
        let failure = |error: &kube::Error| self.failure("write", error);
        let text = serde_json::to_string(shard).map_err(|error| self.unreadable(&self.name(number), &error))?;
        let (name, known) = (self.name(number), self.versions.lock().get(&number).cloned());
        let written = if let Some(version) = known {
            // With the version, the write fails when another process has written it meanwhile.
            let patch = json!({"metadata": {"resourceVersion": version}, "data": {ENTRY: text}});
            let params = PatchParams { field_manager: params().field_manager, ..PatchParams::default() };
            self.api.patch_metadata(&name, &params, &Patch::Merge(&patch)).await.map(|written| written.metadata)
        } else {
            let metadata = ObjectMeta { name: Some(name), labels: Some(self.labels()), ..ObjectMeta::default() };
            let data = Some(BTreeMap::from([(ENTRY.to_owned(), text)]));
            let object = ConfigMap { metadata, data, ..ConfigMap::default() };
            self.api.create(&params(), &object).await.map(|written| written.metadata)
        };
        let version = written.map_err(|error| failure(&error))?.resource_version.unwrap_or_default();
        self.versions.lock().insert(number, version);
        Ok(())
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false }
}

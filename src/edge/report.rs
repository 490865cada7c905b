//! What a replica of the edge tells the operator: which routes it serves, and when each key last verified a delivery.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::{sleep, timeout};

use super::Edge;
use crate::contract::Component;
use crate::contract::report::{REPORT_ENTRY, Report};
use crate::kubernetes::COMPONENT;

/// How often the edge looks whether there is something to tell. Nothing is written while there is not.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the API server to take a report back. What was accepted has the rest of its time.
pub const WITHDRAWAL: Duration = Duration::from_secs(5);

/// Reports for as long as it is polled.
pub async fn tell(edge: &Edge, client: Client, namespace: &str, replica: &str, pod: Option<OwnerReference>) {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let mut told = None;
    // Before that it serves nothing, and to say so would take every endpoint for unserved.
    edge.routes.wait_until_listed().await;
    loop {
        let report = edge.report();
        if told.as_ref() != Some(&report) {
            match write(&api, replica, pod.clone(), &report).await {
                Ok(()) => told = Some(report),
                Err(error) => tracing::warn!(%error, "what this edge serves could not be reported; it is tried again"),
            }
        }
        sleep(PAUSE).await;
    }
}

/// Takes the report back: this replica serves nothing any more. What the API server does not answer in time stays, until the
/// pod is gone.
pub async fn withdraw(client: Client, namespace: &str, replica: &str) {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let error = match timeout(WITHDRAWAL, api.delete(replica, &DeleteParams::default())).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(error, "the report of this edge could not be taken back");
}

async fn write(
    api: &Api<ConfigMap>,
    replica: &str,
    pod: Option<OwnerReference>,
    report: &Report,
) -> Result<(), String> {
    let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
    let report = ConfigMap {
        metadata: ObjectMeta {
            name: Some(replica.to_owned()),
            labels: Some(BTreeMap::from([(COMPONENT.to_owned(), Component::EdgeReport.as_str().to_owned())])),
            // It goes with the pod, however that ends.
            owner_references: pod.map(|pod| vec![pod]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(REPORT_ENTRY.to_owned(), text)])),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply("credence-edge").force();
    api.patch(replica, &params, &Patch::Apply(&report)).await.map(|_| ()).map_err(|error| error.to_string())
}

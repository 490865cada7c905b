//! Writes the report of this replica of a role, which the operator reads.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use super::role::Options;
use crate::contract::Component;
use crate::contract::component::COMPONENT;
use crate::contract::report::{REPORT_ENTRY, Report};
use crate::kubernetes::answer;

/// How often the edge checks whether the report has changed.
const POLL: Duration = Duration::from_secs(1);
/// How often a report is written that has not changed. The API server stores it only if somebody else changed or deleted it.
const REPEAT: Duration = Duration::from_secs(20);
/// How long a stop waits for the API server to delete the report.
pub const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a report was not written.
#[derive(Debug, Error)]
enum WriteError {
    #[error("failed to encode the report")]
    Encode(#[from] serde_json::Error),
    #[error("{}", answer::describe(.0))]
    Kubernetes(#[from] kube::Error),
}

/// Writes the report whenever it changes, and from time to time, for as long as it is polled. It begins when everything that the
/// replica serves is `listed`: one that says that it serves nothing would make everything unserved.
pub async fn publish(client: Client, options: &Options, listed: impl Future<Output = ()>, report: impl Fn() -> Report) {
    let api: Api<ConfigMap> = Api::namespaced(client, &options.namespace);
    let (replica, pod) = (&options.replica, options.pod());
    let mut written: Option<(Report, Instant)> = None;
    listed.await;
    loop {
        let report = report();
        let is_written = |(written, at): &(Report, Instant)| *written == report && at.elapsed() < REPEAT;
        if !written.as_ref().is_some_and(is_written) {
            match write(&api, replica, pod.clone(), &report).await {
                Ok(()) => written = Some((report, Instant::now())),
                Err(error) => tracing::warn!(%error, "failed to write the report of this replica; retrying"),
            }
        }
        sleep(POLL).await;
    }
}

/// Deletes the report: this replica serves nothing any more. If the API server does not answer in time, the report stays until
/// the pod is gone.
pub async fn withdraw(client: Client, options: &Options) {
    let api: Api<ConfigMap> = Api::namespaced(client, &options.namespace);
    let error = match timeout(WITHDRAW_TIMEOUT, api.delete(&options.replica, &DeleteParams::default())).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => answer::describe(&error),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::warn!(error, "failed to delete the report of this replica");
}

async fn write(
    api: &Api<ConfigMap>,
    replica: &str,
    pod: Option<OwnerReference>,
    report: &Report,
) -> Result<(), WriteError> {
    let text = serde_json::to_string(report)?;
    let report = ConfigMap {
        metadata: ObjectMeta {
            name: Some(replica.to_owned()),
            labels: Some(BTreeMap::from([(COMPONENT.to_owned(), Component::EdgeReport.as_str().to_owned())])),
            // It is deleted with the pod, however that ends.
            owner_references: pod.map(|pod| vec![pod]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(REPORT_ENTRY.to_owned(), text)])),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply("credence-edge").force();
    api.patch(replica, &params, &Patch::Apply(&report)).await?;
    Ok(())
}

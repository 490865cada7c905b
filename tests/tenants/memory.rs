//! Objects as large as the API server takes them cost the operator no memory.

use std::time::Duration;

use futures::{StreamExt, stream};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::bed::{Bed, OPERATOR, identity, manifest, run, until};
use crate::tenant::{Tenant, Victim};

/// What the chart gives the operator, in MiB.
const LIMIT: u64 = 256;
/// How many endpoints there are: typed, they took 14 MiB each.
const ENDPOINTS: usize = 24;
/// How many objects there are with large annotations.
const ANNOTATED: usize = 8;

/// An endpoint whose template is a list of very many short texts: 1.3 MB.
fn endpoint(namespace: &str, name: &str, texts: usize) -> Value {
    let list: Vec<String> = (0..texts).map(|number| format!("text-{number}")).collect();
    let template = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": list}});
    let target = json!({"object": {"serviceAccountName": "app", "template": template}});
    let path = format!("/{namespace}/{name}");
    manifest(
        "WebhookEndpoint",
        Some(namespace),
        name,
        json!({"path": path, "verification": {"github": {}}, "target": target}),
    )
}

/// A text that cannot be compressed.
fn noise(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

/// The resident memory of the operator now and at most, in MiB.
async fn memory() -> (u64, u64) {
    let bed = Bed::open().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.env("OPERATOR_PID"))).unwrap();
    let of = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

async fn is_working() {
    until("the operator to work", || async {
        let bed = Bed::open().await;
        let answer = run(
            "curl",
            &["--silent", "--max-time", "5", &bed.env("OPERATOR_METRICS_URL").replace("metrics", "readyz")],
            "",
        )
        .1;
        if answer.trim() == "working" { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn objects_of_any_size_cost_the_operator_no_memory() {
    let alone = OPERATOR.lock().await;
    let tenant = Tenant::new("large").await;
    let victim = Victim::new(&tenant.bed, "large").await;
    let (bed, namespace) = (&tenant.bed, tenant.namespace.as_str());
    let annotated = (0..ANNOTATED).flat_map(|number| {
        let annotations = json!({"large": noise(250_000)});
        let metadata = json!({"name": format!("s{number}"), "namespace": namespace, "annotations": annotations,
            "labels": {"credence.dev/webhook-keys": "true"}});
        let mut noted = identity(namespace, &format!("i{number}"), &[]);
        noted["metadata"]["annotations"] = annotations;
        [noted, json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})]
    });
    let endpoints = (0..ENDPOINTS).map(|number| endpoint(namespace, &format!("e{number}"), 100_000));
    let objects = endpoints.chain(annotated);
    let own = &tenant.own;
    let created = stream::iter(objects).map(|object| async move {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let object = serde_json::from_value(object).unwrap();
        own.api(&kind, Some(namespace)).create(&PostParams::default(), &object).await.unwrap();
    });
    created.buffer_unordered(4).collect::<Vec<()>>().await;
    for name in ["e0".to_owned(), format!("e{}", ENDPOINTS - 1)] {
        let refused = ("False", "InvalidSpec");
        let found = bed.condition("WebhookEndpoint", Some(namespace), &name, "Accepted", refused).await;
        assert!(found.data["status"].to_string().contains("longer than 64 KiB"), "{}", found.data["status"]);
    }
    victim.is_well(bed).await;
    let created = memory().await;

    bed.part("stop", "operator");
    bed.part("start", "operator");
    is_working().await;
    drop(alone);
    victim.is_well(bed).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let restarted = memory().await;
    println!("memory in MiB, now and at most: {created:?} when created, {restarted:?} after a restart");
    assert!(created.1 < LIMIT && restarted.1 < LIMIT);

    // A smaller template later is accepted as any other.
    let mut smaller = endpoint(namespace, "e0", 10);
    smaller["metadata"]["resourceVersion"] =
        json!(bed.get("WebhookEndpoint", Some(namespace), "e0").await.unwrap().metadata.resource_version);
    let smaller = serde_json::from_value(smaller).unwrap();
    own.api("WebhookEndpoint", Some(namespace)).replace("e0", &PostParams::default(), &smaller).await.unwrap();
    bed.condition("WebhookEndpoint", Some(namespace), "e0", "Accepted", ("True", "Valid")).await;
    for kind in ["WebhookEndpoint", "ServiceIdentity", "Secret"] {
        let all = own.api(kind, Some(namespace));
        all.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    }
    until("the endpoints to be gone", || async {
        let left = bed.api("WebhookEndpoint", Some(namespace)).list_metadata(&ListParams::default()).await.unwrap();
        if left.items.is_empty() { Ok(()) } else { Err(left.items.len().to_string()) }
    })
    .await;
}

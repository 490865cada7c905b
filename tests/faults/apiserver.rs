//! An API server that is stopped, refuses requests, is slow, loses connections, or has compacted its history.

use std::time::Duration;

use kube::api::ListParams;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, policy, run, until};
use crate::gateway::Gateway;
use crate::operator::Operator;
use crate::proxy::{Mode, Proxy};

/// A kubeconfig for the operator that points to a proxy.
fn via_proxy(bed: &Bed, proxy: &Proxy) -> String {
    let text = std::fs::read_to_string(bed.env("OPERATOR_KUBECONFIG")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["clusters"][0]["cluster"]["server"] = format!("https://{}", proxy.address).into();
    let path = format!("{}/proxy.kubeconfig", bed.env("BED_DIR"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn server(bed: &Bed) -> String {
    let text = std::fs::read_to_string(bed.env("OPERATOR_KUBECONFIG")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    config["clusters"][0]["cluster"]["server"].as_str().unwrap().trim_start_matches("https://").to_owned()
}

async fn versions(bed: &Bed, namespace: &str) -> Vec<(String, Option<String>)> {
    let mut versions = Vec::new();
    for kind in ["ServiceIdentity", "TopicPolicy", "Secret"] {
        let listed = bed.api(kind, Some(namespace)).list(&ListParams::default()).await.unwrap();
        let named = listed.items.into_iter().map(|it| (it.metadata.name.unwrap(), it.metadata.resource_version));
        versions.extend(named);
    }
    versions
}

async fn burst(bed: &Bed, namespace: &str, count: usize) {
    for number in 0..count {
        let (name, topic) = (format!("service-{number}"), format!("sandbox.{namespace}.{number}"));
        bed.apply(identity(namespace, &name, &["kafka"])).await.unwrap();
        let grants = json!([{"identity": {"name": name}, "actions": ["Publish"]}]);
        bed.apply(policy(namespace, &name, &topic, grants)).await.unwrap();
    }
}

async fn all_ready(bed: &Bed, namespace: &str, count: usize) {
    for number in 0..count {
        bed.ready("ServiceIdentity", Some(namespace), &format!("service-{number}")).await;
        bed.ready("TopicPolicy", Some(namespace), &format!("service-{number}")).await;
    }
}

#[tokio::test]
async fn the_operator_survives_an_outage_of_the_api_server() {
    let bed = Bed::open().await;
    let operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("away").await;
    burst(&bed, &namespace, 3).await;
    all_ready(&bed, &namespace, 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = versions(&bed, &namespace).await;
    let pid = operator.pid();
    bed.part("stop", "apiserver");
    operator.says("standing by").await;
    bed.part("start", "apiserver");
    operator.says("working").await;
    bed.apply(identity(&namespace, "after", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "after").await;
    assert_eq!(operator.pid(), pid, "the process was not restarted");
    let after: Vec<_> = versions(&bed, &namespace).await;
    let unchanged: Vec<_> = after.into_iter().filter(|(name, _)| !name.starts_with("after")).collect();
    assert_eq!(unchanged, before, "existing objects are not written");
}

#[tokio::test]
async fn writes_that_the_api_server_refuses_are_made_once_later() {
    let bed = Bed::open().await;
    let gateway = Gateway::open(&bed).await;
    let operator = Operator::start(&bed, &["--lease-seconds", "60"], &[("KUBECONFIG", &gateway.kubeconfig)]).await;
    for (status, one_in) in [(429, 2), (500, 2), (503, 1)] {
        let namespace = bed.namespace("refuses").await;
        let issued = operator.metric("credence_certificates_issued_total");
        gateway.set(Some((status, one_in)));
        burst(&bed, &namespace, 5).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        gateway.set(None);
        all_ready(&bed, &namespace, 5).await;
        let issued = operator.metric("credence_certificates_issued_total") - issued;
        assert!((10.0..=12.0).contains(&issued), "{issued} certificates for ten Secrets while {status} was answered");
    }
    assert!(operator.metric("credence_kubernetes_requests_total{verb=\"PATCH\"") > 0.0);
    let defects = operator.metric("credence_reconciles_total{controller=\"service_identity\",outcome=\"bug\"");
    assert!(defects.abs() < 0.5, "a refused request does not count as a bug");
}

#[tokio::test]
async fn objects_get_ready_with_a_slow_unreliable_api_server() {
    let bed = Bed::open().await;
    let proxy = Proxy::to(&server(&bed)).await;
    let _operator =
        Operator::start(&bed, &["--lease-seconds", "60"], &[("KUBECONFIG", &via_proxy(&bed, &proxy))]).await;
    let namespace = bed.namespace("slow").await;
    proxy.set(Mode::Slow(Duration::from_millis(100)));
    burst(&bed, &namespace, 5).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        proxy.cut(Mode::Slow(Duration::from_millis(100))).await;
    }
    all_ready(&bed, &namespace, 5).await;
}

#[tokio::test]
async fn watches_list_again_after_a_compaction_and_miss_nothing() {
    let bed = Bed::open().await;
    let proxy = Proxy::to(&server(&bed)).await;
    let operator =
        Operator::start(&bed, &["--lease-seconds", "120"], &[("KUBECONFIG", &via_proxy(&bed, &proxy))]).await;
    let namespace = bed.namespace("compacted").await;
    burst(&bed, &namespace, 3).await;
    all_ready(&bed, &namespace, 3).await;

    proxy.set(Mode::Cut);
    bed.delete("Secret", Some(&namespace), "service-0-mtls").await;
    bed.delete("ServiceIdentity", Some(&namespace), "service-1").await;
    bed.apply(identity(&namespace, "new", &[])).await.unwrap();
    let revision = |path: &str, body: &str| {
        let url = format!("{}/v3/{path}", bed.env("ETCD_URL"));
        let (ok, output) = run("curl", &["--fail", "--silent", "--data", body, &url], "");
        assert!(ok, "{path}: {output}");
        output
    };
    let status: Value = serde_json::from_str(&revision("maintenance/status", "{}")).unwrap();
    let newest = status["header"]["revision"].as_str().unwrap().to_owned();
    revision("kv/compaction", &format!("{{\"revision\": \"{newest}\", \"physical\": true}}"));
    // A restarted API server has no older events in its watch cache.
    bed.part("stop", "apiserver");
    bed.part("start", "apiserver");
    proxy.set(Mode::Pass);

    bed.ready("ServiceIdentity", Some(&namespace), "new").await;
    until("the deleted Secret to be issued again", || async {
        bed.secret(&namespace, "service-0-mtls").await.ok_or_else(|| "it does not exist".to_owned())
    })
    .await;
    bed.condition("TopicPolicy", Some(&namespace), "service-1", "Ready", ("False", "IdentityNotFound")).await;
    let principal = format!("User:CN=service-1,OU={namespace},O=demo.credence.example");
    assert_eq!(bed.acls(&principal).trim(), "", "the ACLs of a deleted identity are revoked");
    assert!(operator.metric("credence_watch_interruptions_total") > 0.0);
    assert_eq!(operator.get("readyz"), "working\n", "the operator is still the leader");
}

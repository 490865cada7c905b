//! What tenants share at the edge: threads, rates, and memory. Nobody uses up what others need.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::customer::{Customer, stalls};
use crate::hooks::{Target, endpoint, https, tls};
use crate::tenant::Tenant;

fn key_secret(namespace: &str, name: &str, keys: &BTreeMap<String, String>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
        "stringData": keys,
    })
}

/// An endpoint of the tenant for GitHub, with the keys of a Secret.
fn github(namespace: &str, name: &str, target: &Target) -> Value {
    let mut github = endpoint(namespace, name, target, json!({"github": {}}));
    github["spec"]["keys"] = json!({"external": {"secretRef": {"name": name}}});
    github
}

/// Posts unsigned bodies of this size at the same time, and returns the answers.
async fn unsigned(tenant: &Tenant, path: &str, size: usize, count: usize) -> Vec<u16> {
    let client = https(tls(&tenant.bed));
    let url = format!("{}{path}", tenant.bed.env("EDGE_URL"));
    let body = Bytes::from(vec![b'x'; size]);
    let posts = (0..count).map(async |_| {
        let request = Request::post(&url)
            .header("host", "localhost")
            .header("x-hub-signature-256", format!("sha256={}", "0".repeat(64)))
            .body(Full::new(body.clone()))
            .unwrap();
        client.request(request).await.unwrap().status().as_u16()
    });
    join_all(posts).await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_keys_hold_no_worker() {
    let tenant = Tenant::new("keys").await;
    let customer = Customer::new(&tenant.bed, "keys").await;
    let namespace = tenant.namespace.as_str();
    let keys = (0..5000).map(|number| (format!("k{number:04}"), format!("{number:032x}"))).collect();
    tenant.own.apply(key_secret(namespace, "many", &keys)).await.unwrap();
    let target = Target::start().await;
    let mut many = github(namespace, "many", &target);
    many["spec"]["limits"] = json!({"body": "10Mi", "perSecond": 100_000});
    tenant.own.apply(many).await.unwrap();
    let (kind, own) = ("WebhookEndpoint", Some(namespace));
    tenant.bed.condition(kind, own, "many", "KeysReady", ("False", "KeysNotUsed")).await;
    let object = tenant.bed.condition(kind, own, "many", "Programmed", ("True", "Programmed")).await;
    let status = object.data["status"].to_string();
    assert!(status.contains("32 keys are used and 4968 more are not"), "{status}");
    assert!(status.len() < 16 << 10, "a status of {} bytes", status.len());

    let before = stalls(&tenant.bed);
    let path = format!("/{namespace}/many");
    let attack = async {
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.extend(unsigned(&tenant, &path, 10 << 20, 4).await);
        }
        answers
    };
    let answers = customer.notices_nothing_of(attack).await;
    assert!(answers.iter().all(|status| *status == 403), "{answers:?}");
    assert_eq!(stalls(&tenant.bed), before, "a worker was held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_takes_no_good_one_down() {
    let tenant = Tenant::new("badkey").await;
    let namespace = tenant.namespace.as_str();
    let good = "0123456789abcdef0123456789abcdef";
    let keys = [("bad", "short"), ("good", good), ("timed", good), ("timed.notAfter", "soon")];
    let keys = keys.map(|(id, key)| (id.to_owned(), key.to_owned())).into();
    tenant.own.apply(key_secret(namespace, "mixed", &keys)).await.unwrap();
    let target = Target::start().await;
    tenant.own.apply(github(namespace, "mixed", &target)).await.unwrap();
    let (kind, own) = ("WebhookEndpoint", Some(namespace));
    tenant.bed.condition(kind, own, "mixed", "KeysReady", ("False", "KeysNotUsed")).await;
    let object = tenant.bed.condition(kind, own, "mixed", "Programmed", ("True", "Programmed")).await;
    let status = object.data["status"].to_string();
    assert!(status.contains("the key bad: ") && status.contains("timed.notAfter is not a time"), "{status}");
    assert_eq!(object.data["status"]["liveKeys"], 1);
}

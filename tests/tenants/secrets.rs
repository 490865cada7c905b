//! What is used of a Secret that a tenant can write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::net::TcpListener;

use crate::bed::{manifest, until};
use crate::hooks::{Sender, signing_key};
use crate::tenant::{Tenant, Victim, publish};

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_connects_where_the_platform_says_and_nowhere_else() {
    let tenant = Tenant::new("address").await;
    let victim = Victim::new(&tenant.bed, "address").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    let topic = format!("sandbox.{}", tenant.namespace);
    bed.kafka("kafka-topics", &["--create", "--topic", &topic]);
    tenant.identity("app").await;
    tenant.policy("app", &topic, publish("app")).await;
    bed.ready("TopicPolicy", namespace, "app").await;
    let path = format!("/{}/tok", tenant.namespace);
    let target = json!({"kafka": {"broker": "kafka", "serviceIdentity": "app", "topic": topic}});
    let spec = json!({"path": path, "verification": {"standardWebhooks": {}}, "target": target});
    tenant.own.apply(manifest("WebhookEndpoint", namespace, "tok", spec)).await.unwrap();
    bed.ready("WebhookEndpoint", namespace, "tok").await;
    let (key, sender) = (signing_key(bed, &tenant.namespace, "tok").await, Sender::new(bed, bed.env("EDGE_URL")));
    assert_eq!(sender.send(&path, &key, "before", "{}").await.unwrap(), 200);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicU32::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    // By its field manager the Secret looks as if the operator had written it.
    let data = json!({"bootstrap-servers": base64(own.as_bytes()), "ca.crt": base64(b"mallory's authority")});
    let params = PatchParams { field_manager: Some("credence".into()), ..PatchParams::default() };
    let api = tenant.own.api("Secret", namespace);
    api.patch("app.kafka", &params, &Patch::Merge(&json!({"data": data}))).await.unwrap();
    tenant.patch("WebhookEndpoint", "tok", json!({"spec": {"limits": {"perSecond": 201}}})).await;
    bed.ready("WebhookEndpoint", namespace, "tok").await;
    assert_eq!(sender.send(&path, &key, "after", "{}").await.unwrap(), 200);

    // Another credential than the operator's is not used either.
    let data = json!({"tls.crt": base64(std::fs::read(bed.env("EDGE_CA")).unwrap().as_slice())});
    api.patch("app.kafka", &params, &Patch::Merge(&json!({"data": data}))).await.unwrap();
    tenant.patch("WebhookEndpoint", "tok", json!({"spec": {"limits": {"perSecond": 202}}})).await;
    until("the credential to be refused", || async {
        let status = bed.get("WebhookEndpoint", namespace, "tok").await.unwrap().data["status"].to_string();
        if status.contains("IdentityNotReady") { Ok(()) } else { Err(status) }
    })
    .await;
    assert_eq!(sender.send(&path, &key, "still", "{}").await.unwrap(), 200, "the former route goes on");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(connections.load(Ordering::Relaxed), 0);
    victim.is_well(bed).await;
}

//! Where connections of the operator and of the edge may lead. Everything stays on loopback: the machine of the bed admits one
//! loopback address, and here is another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bed::{Bed, identity, manifest, unique, until};
use crate::hooks::{Sender, Target, endpoint, signing_key};
use crate::kafka_peer::Peer;
use crate::tenant::{Tenant, Victim};

/// A loopback address that nothing may connect to.
const ELSEWHERE: &str = "127.0.0.2";

/// A server that counts its connections.
async fn watched() -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind((ELSEWHERE, 0)).await.unwrap();
    let (port, connections) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU32::new(0)));
    let counted = connections.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, connections)
}

/// Why the last delivery to an endpoint was refused, as the audit log says.
fn last_reason(bed: &Bed, endpoint: &str) -> Value {
    let log = std::fs::read_to_string(bed.env("EDGE_AUDIT_LOG")).unwrap();
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["endpoint"] == endpoint).unwrap()["reason"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_leads_the_edge_to_no_other_address() {
    let bed = Bed::open().await;
    let (peer, broker) = (Peer::start().await, unique("announced"));
    let (port, connections) = watched().await;
    peer.connect(&bed, &broker).await;
    bed.ready("BrokerConnection", None, &broker).await;
    let namespace = bed.namespace("announced").await;
    bed.apply(identity(&namespace, "app", &[&broker])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "app").await;
    let path = format!("/{namespace}/tok");
    let kafka = json!({"broker": broker, "serviceIdentity": "app", "topic": "sandbox.announced", "attempts": 1});
    let spec = json!({"path": path, "verification": {"standardWebhooks": {}}, "target": {"kafka": kafka}});
    bed.apply(manifest("WebhookEndpoint", Some(&namespace), "tok", spec)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "tok").await;
    let (key, sender) = (signing_key(&bed, &namespace, "tok").await, Sender::new(&bed, bed.env("EDGE_URL")));
    for (index, (host, port)) in [
        ("169.254.169.254", 80),
        ("100.100.100.200", 80),
        (ELSEWHERE, port),
        ("::ffff:127.0.0.2", port),
        ("0.0.0.0", port),
        ("::1", port),
    ]
    .into_iter()
    .enumerate()
    {
        peer.announce(host, port);
        let status = sender.send(&path, &key, &format!("elsewhere-{index}"), "{}").await.unwrap();
        let reason = last_reason(&bed, &format!("{namespace}/tok"));
        assert_eq!((status.as_u16(), reason), (502, json!("AddressRefused")), "{host}");
        // What an answer teaches is used for a moment after a failure.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    peer.announce("127.0.0.1", peer.port);
    let status = sender.send(&path, &key, "good", "{}").await.unwrap();
    assert_eq!((status.as_u16(), peer.written(), connections.load(Ordering::Relaxed)), (200, 1, 0));
    bed.delete("WebhookEndpoint", Some(&namespace), "tok").await;
    bed.delete("ServiceIdentity", Some(&namespace), "app").await;
    bed.delete("BrokerConnection", None, &broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_connects_to_no_other_loopback_address() {
    let bed = Bed::open().await;
    let victim = Victim::new(&bed, "elsewhere").await;
    let (port, connections) = watched().await;
    let (peer, name) = (Peer::start().await, unique("elsewhere"));
    for address in [format!("{ELSEWHERE}:{port}"), format!("[::1]:{port}"), "169.254.169.254:9093".to_owned()] {
        peer.connect_at(&bed, &name, &address).await;
        let refused = ("False", "AddressRefused");
        let object = bed.condition("BrokerConnection", None, &name, "Connected", refused).await;
        let status = object.data["status"].to_string();
        assert!(status.contains(&address) && status.contains("bootstrapServers"), "{status}");
    }
    peer.connect(&bed, &name).await;
    bed.ready("BrokerConnection", None, &name).await;
    assert_eq!(connections.load(Ordering::Relaxed), 0);
    victim.is_well(&bed).await;
    bed.delete("BrokerConnection", None, &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_no_port_of_credence_itself() {
    let tenant = Tenant::new("own-ports").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    let port = |url: &str| -> u16 {
        let authority = bed.env(url).split('/').nth(2).unwrap();
        authority.rsplit_once(':').unwrap().1.parse().unwrap()
    };
    let target = Target::start().await;
    let good = endpoint(&tenant.namespace, "good", &target, json!({"standardWebhooks": {}}));
    tenant.own.apply(good.clone()).await.unwrap();
    bed.ready("WebhookEndpoint", namespace, "good").await;
    for (name, port, condition) in [
        ("operator", port("OPERATOR_METRICS_URL"), ("Accepted", ("False", "InvalidSpec"))),
        // Only the edge knows its own ports.
        ("edge", port("EDGE_URL"), ("Programmed", ("False", "NotProgrammed"))),
        ("metrics", port("EDGE_METRICS_URL"), ("Programmed", ("False", "NotProgrammed"))),
    ] {
        let mut own = endpoint(&tenant.namespace, name, &target, json!({"standardWebhooks": {}}));
        own["spec"]["target"]["service"]["port"] = json!(port);
        tenant.own.apply(own).await.unwrap();
        bed.condition("WebhookEndpoint", namespace, name, condition.0, condition.1).await;
        until("the keys", || async {
            let secret = bed.secret(&tenant.namespace, &format!("{name}-webhook-keys")).await;
            secret.map(|_| ()).ok_or_else(|| "there are none".to_owned())
        })
        .await;
        let (key, sender) = (signing_key(bed, &tenant.namespace, name).await, Sender::new(bed, bed.env("EDGE_URL")));
        let path = format!("/{}/{name}", tenant.namespace);
        assert_eq!(sender.send(&path, &key, "one", "{}").await.unwrap(), 404, "{name}");
    }
    let (key, sender) = (signing_key(bed, &tenant.namespace, "good").await, Sender::new(bed, bed.env("EDGE_URL")));
    let path = format!("/{}/good", tenant.namespace);
    assert_eq!(sender.send(&path, &key, "one", "{}").await.unwrap(), 200);
    assert_eq!(target.count(), 1);
}

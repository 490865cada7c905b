//! What one namespace may have of what all share: room at the edge, ACLs at a broker, the operator's time.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::bed::{Bed, broker_connection, identity, manifest, policy, unique, until, with};
use crate::tenant::{Tenant, Victim, principal, publish};

/// An endpoint with keys of the Secret `keys`, and a template of this length.
fn endpoint(namespace: &str, name: &str, length: usize) -> Value {
    let template = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "x".repeat(length)}});
    let target = json!({"object": {"serviceAccountName": "app", "template": template}});
    let keys = json!({"external": {"secretRef": {"name": "keys"}}});
    let path = format!("/{namespace}/{name}");
    let spec = json!({"path": path, "verification": {"github": {}}, "keys": keys, "target": target});
    manifest("WebhookEndpoint", Some(namespace), name, spec)
}

/// A Secret with a key.
fn keys(namespace: &str) -> Value {
    let labels = json!({"credence.dev/webhook-keys": "true"});
    json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"first": "0123456789abcdef0123456789abcdef"},
        "metadata": {"name": "keys", "namespace": namespace, "labels": labels}})
}

/// The lengths of the routes of a namespace.
async fn routes(bed: &Bed, namespace: &str) -> Vec<usize> {
    let found = bed.api("Secret", Some("credence-edge")).list(&ListParams::default()).await.unwrap();
    let of_it = found.items.iter().filter(|secret| {
        let annotations = secret.metadata.annotations.iter().flatten();
        let mut written_for = annotations.filter(|(name, _)| *name == "credence.dev/for");
        written_for.any(|(_, value)| value.starts_with(&format!("WebhookEndpoint/{namespace}/")))
    });
    of_it.map(|secret| secret.data["data"]["route.json"].as_str().unwrap().len() * 3 / 4).collect()
}

async fn apply_all(bed: &Bed, manifests: Vec<Value>) {
    let applied = stream::iter(manifests.into_iter().map(|manifest| bed.apply(manifest))).buffer_unordered(8);
    applied.for_each(|result| async { _ = result.unwrap() }).await;
}

#[tokio::test]
async fn the_namespace_of_the_edge_cannot_be_filled() {
    let tenant = Tenant::new("fill").await;
    let victim = Victim::new(&tenant.bed, "fill").await;
    let (bed, namespace) = (&tenant.bed, tenant.namespace.as_str());
    tenant.own.apply(keys(namespace)).await.unwrap();
    // 59 KiB each: 139 of them are 8 MiB.
    let name = |number: usize| format!("e{number}");
    apply_all(&tenant.own, (0..160).map(|number| endpoint(namespace, &name(number), 60_000)).collect()).await;
    let judged = until("every endpoint to be judged", || async {
        let found = bed.api("WebhookEndpoint", Some(namespace)).list(&ListParams::default()).await.unwrap();
        let reasons: Vec<(String, String)> = found
            .items
            .iter()
            .filter_map(|it| {
                let conditions = it.data["status"]["conditions"].as_array()?;
                let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
                let reason = ready["reason"].as_str()?.to_owned();
                ["Ready", "LimitExceeded"]
                    .contains(&reason.as_str())
                    .then(|| (it.metadata.name.clone().unwrap(), reason))
            })
            .collect();
        if reasons.len() == 160 { Ok(reasons) } else { Err(format!("{} of 160", reasons.len())) }
    })
    .await;
    let refused: Vec<&String> =
        judged.iter().filter(|(_, reason)| reason == "LimitExceeded").map(|(it, _)| it).collect();
    let taken: usize = routes(bed, namespace).await.iter().sum();
    println!("{} of 160 are refused, the others take {} KiB", refused.len(), taken >> 10);
    assert!((15..30).contains(&refused.len()));
    assert!(taken <= 8 << 20);
    // The victim has its share, and what the tenant deletes makes room.
    bed.apply(keys(&victim.namespace)).await.unwrap();
    bed.apply(endpoint(&victim.namespace, "own", 10)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&victim.namespace), "own").await;
    for (name, _) in judged.iter().filter(|(name, _)| *name != *refused[0]) {
        tenant.own.api("WebhookEndpoint", Some(namespace)).delete(name, &DeleteParams::default()).await.unwrap();
    }
    bed.ready("WebhookEndpoint", Some(namespace), refused[0]).await;
    victim.is_well(bed).await;
}

#[tokio::test]
async fn a_namespace_has_a_share_of_the_acls_of_a_broker() {
    let tenant = Tenant::new("acls").await;
    let bed = &tenant.bed;
    let (namespace, broker, victim) = (tenant.namespace.as_str(), unique("acls"), bed.namespace("acls-victim").await);
    let connection = broker_connection(&broker, bed.env("KAFKA_BOOTSTRAP"));
    bed.apply(with(connection, "/spec/maxBindingsPerNamespace", json!(3))).await.unwrap();
    bed.ready("BrokerConnection", None, &broker).await;
    let on = |namespace: &str, name: &str| {
        let topic = format!("sandbox.{namespace}.{name}");
        with(policy(namespace, name, &topic, publish("app")), "/spec/broker", json!(broker))
    };
    for (bed, namespace) in [(&tenant.own, namespace), (bed, victim.as_str())] {
        bed.apply(identity(namespace, "app", &[&broker])).await.unwrap();
    }
    bed.ready("ServiceIdentity", Some(namespace), "app").await;
    for name in ["a", "b", "c"] {
        tenant.own.apply(on(namespace, name)).await.unwrap();
        bed.ready("TopicPolicy", Some(namespace), name).await;
    }
    tenant.own.apply(on(namespace, "d")).await.unwrap();
    let refused = ("False", "LimitExceeded");
    bed.condition("TopicPolicy", Some(namespace), "d", "Accepted", refused).await;
    assert!(!bed.acls(&tenant.principal("app")).contains(&format!("sandbox.{namespace}.d")));
    bed.apply(on(&victim, "app")).await.unwrap();
    bed.ready("TopicPolicy", Some(&victim), "app").await;
    assert!(bed.acls(&principal(&victim, "app")).contains(&format!("sandbox.{victim}.app")));
    for name in ["a", "b", "c"] {
        bed.ready("TopicPolicy", Some(namespace), name).await;
    }
    for name in ["a", "b", "c", "d"] {
        tenant.own.delete("TopicPolicy", Some(namespace), name).await;
    }
    bed.delete("TopicPolicy", Some(&victim), "app").await;
}

/// A tenant that edits many objects again and again against one new object of the victim.
#[tokio::test]
async fn a_flood_of_edits_delays_no_other_namespace() {
    let tenant = Tenant::new("flood").await;
    let victim = Victim::new(&tenant.bed, "flood").await;
    let (bed, namespace) = (&tenant.bed, tenant.namespace.as_str());
    let takes = |name: String| {
        let namespace = victim.namespace.clone();
        async move {
            let began = Instant::now();
            bed.apply(identity(&namespace, &name, &[])).await.unwrap();
            bed.ready("ServiceIdentity", Some(&namespace), &name).await;
            began.elapsed()
        }
    };
    let mut alone = Duration::ZERO;
    for number in 0..3 {
        alone = alone.max(takes(format!("alone{number}")).await);
    }
    let many: Vec<Value> = (0..300).map(|number| identity(namespace, &format!("many{number}"), &[])).collect();
    apply_all(&tenant.own, many).await;
    let flood = async {
        for round in 0.. {
            let edit = json!({"metadata": {"annotations": {"round": round.to_string()}},
                "spec": {"authentication": {"mtls": {"dnsNames": [format!("r{round}.{namespace}.svc")]}}}});
            let edits = stream::iter(0..300_u32).map(|number| {
                let (own, edit) = (tenant.own.api("ServiceIdentity", Some(namespace)), edit.clone());
                async move {
                    let patch = kube::api::Patch::Merge(edit);
                    own.patch(&format!("many{number}"), &kube::api::PatchParams::default(), &patch).await.unwrap();
                }
            });
            edits.buffer_unordered(4).for_each(|()| async {}).await;
        }
    };
    let measure = async {
        let mut delayed = Duration::ZERO;
        for number in 0..5 {
            delayed = delayed.max(takes(format!("beside{number}")).await);
        }
        delayed
    };
    let delayed = tokio::select! {
        () = flood => unreachable!("it goes on"),
        delayed = measure => delayed,
    };
    println!("a new identity of the victim takes {alone:?} alone and {delayed:?} beside the flood, at most");
    // The flood also keeps the API server busy, which all share; waiting for the queue of the tenant would take minutes.
    assert!(delayed < alone * 4 + Duration::from_secs(3), "{alone:?} alone, {delayed:?} beside the flood");
    victim.is_well(bed).await;
    let all = tenant.own.api("ServiceIdentity", Some(namespace));
    all.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
}

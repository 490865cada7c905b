//! Rotation: requested, suspended, limited in concurrency, and separate from all other configuration.

use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, openssl, policy, until, with};

fn rotation(namespace: &str, name: &str, spec: Value) -> Value {
    let base = manifest("RotationPolicy", Some(namespace), name, json!({"targets": [{"kind": "ServiceIdentity"}]}));
    spec.as_object().unwrap().iter().fold(base, |it, (field, value)| with(it, &format!("/spec/{field}"), value.clone()))
}

fn serial(object: &DynamicObject) -> String {
    object.data["status"]["certificate"]["serialNumber"].as_str().unwrap_or_default().to_owned()
}

/// Waits for the next second: `issuedBefore` has a resolution of one second.
async fn next_second() -> String {
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string()
}

#[tokio::test]
async fn issued_before_renews_credentials_and_changes_nothing_else() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("order").await;
    let topic = format!("sandbox.{namespace}");
    bed.kafka("kafka-topics", &["--create", "--topic", &topic]);
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    bed.apply(policy(&namespace, "orders", &topic, grants)).await.unwrap();
    bed.apply(rotation(&namespace, "default", json!({}))).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    let before = bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let principal = before.data["status"]["brokers"][0]["principal"].as_str().unwrap();
    let acls = bed.acls(principal);
    let policy_before = bed.get("TopicPolicy", Some(&namespace), "orders").await.unwrap();
    let (old_mtls, old_account) =
        (bed.mount(&namespace, "orders-mtls").await, bed.mount(&namespace, "orders.kafka").await);

    let order = json!({"issuedBefore": next_second().await});
    bed.apply(rotation(&namespace, "default", order)).await.unwrap();
    let after = until("new certificates", || async {
        let now = bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
        let account = |it: &DynamicObject| it.data["status"]["brokers"][0]["certificate"]["serialNumber"].clone();
        let renewed = serial(&now) != serial(&before) && account(&now) != account(&before);
        if renewed { Ok(now) } else { Err(serial(&now)) }
    })
    .await;
    assert_eq!(after.metadata.generation, before.metadata.generation, "the spec of the identity is unchanged");
    assert_eq!(after.data["spec"], before.data["spec"]);
    assert_eq!(bed.acls(principal), acls, "no ACL was changed");
    let policy_after = bed.get("TopicPolicy", Some(&namespace), "orders").await.unwrap();
    assert_eq!(
        policy_after.metadata.resource_version, policy_before.metadata.resource_version,
        "the policy was not written"
    );

    let new_mtls = bed.mount(&namespace, "orders-mtls").await;
    let chain = |folder: &std::path::Path| folder.join("tls.crt").to_str().unwrap().to_owned();
    for (verifier, presented) in [(&old_mtls, &new_mtls), (&new_mtls, &old_mtls)] {
        let roots = verifier.join("ca.crt").to_str().unwrap().to_owned();
        openssl(&["verify", "-CAfile", &roots, "-untrusted", &chain(presented), &chain(presented)]);
    }
    for account in [&old_account, &bed.mount(&namespace, "orders.kafka").await] {
        let (published, output) = bed.publish(account, &topic);
        assert!(published, "both the old and the new credential can publish: {output}");
    }
    bed.condition("RotationPolicy", Some(&namespace), "default", "Rotated", ("True", "Renewed")).await;
    let settled = bed.get("ServiceIdentity", Some(&namespace), "orders").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let later = bed.get("ServiceIdentity", Some(&namespace), "orders").await.unwrap();
    assert_eq!(
        settled.metadata.resource_version, later.metadata.resource_version,
        "each issuedBefore is carried out once"
    );
}

#[tokio::test]
async fn rotation_renews_no_more_than_max_concurrent_at_once() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("narrow").await;
    let names: Vec<String> = (0..6).map(|number| format!("service-{number}")).collect();
    let mut before = Vec::new();
    for name in &names {
        bed.apply(identity(&namespace, name, &[])).await.unwrap();
        before.push(serial(&bed.ready("ServiceIdentity", Some(&namespace), name).await));
    }
    let order = json!({"maxConcurrent": 1, "issuedBefore": next_second().await});
    bed.apply(rotation(&namespace, "default", order)).await.unwrap();
    for (name, old) in names.iter().zip(&before) {
        until(&format!("{name} to be renewed"), || async {
            let now = serial(&bed.get("ServiceIdentity", Some(&namespace), name).await.unwrap());
            if now == *old { Err(now) } else { Ok(()) }
        })
        .await;
    }
    let policy = bed.condition("RotationPolicy", Some(&namespace), "default", "Ready", ("True", "Ready")).await;
    assert_eq!((&policy.data["status"]["targets"], &policy.data["status"]["outstanding"]), (&json!(6), &json!(0)));
}

#[tokio::test]
async fn rotation_pauses_while_suspended_and_then_continues() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("suspend").await;
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    let before = serial(&bed.ready("ServiceIdentity", Some(&namespace), "orders").await);
    let order = next_second().await;
    let held = json!({"suspend": true, "issuedBefore": order});
    bed.apply(rotation(&namespace, "default", held)).await.unwrap();
    bed.condition("RotationPolicy", Some(&namespace), "default", "Ready", ("False", "Suspended")).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let now = bed.get("ServiceIdentity", Some(&namespace), "orders").await.unwrap();
    assert_eq!(serial(&now), before, "rotation is suspended");
    bed.apply(rotation(&namespace, "default", json!({"suspend": false, "issuedBefore": order}))).await.unwrap();
    until("the renewal", || async {
        let now = serial(&bed.get("ServiceIdentity", Some(&namespace), "orders").await.unwrap());
        if now == before { Err(now) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn rotation_uses_the_most_specific_policy_and_names_it() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("closest").await;
    let mut service = identity(&namespace, "orders", &[]);
    service["metadata"]["labels"] = json!({"tier": "edge"});
    bed.apply(service).await.unwrap();
    let followed = |wanted: String| {
        let bed = &bed;
        let namespace = &namespace;
        async move {
            until(&format!("the policy {wanted}"), || async {
                let now = bed.get("ServiceIdentity", Some(namespace), "orders").await.unwrap();
                let found = now.data["status"]["rotationPolicy"].as_str().unwrap_or_default().to_owned();
                if found == wanted { Ok(now) } else { Err(found) }
            })
            .await
        }
    };
    followed("built-in".into()).await;
    bed.apply(rotation(&namespace, "kind", json!({"certificates": {"lifetime": "12h"}}))).await.unwrap();
    followed(format!("{namespace}/kind")).await;
    let selector = json!([{"kind": "ServiceIdentity", "selector": {"matchLabels": {"tier": "edge"}}}]);
    bed.apply(rotation(&namespace, "selector", json!({"targets": selector}))).await.unwrap();
    followed(format!("{namespace}/selector")).await;
    let name = json!([{"kind": "ServiceIdentity", "name": "orders"}]);
    let short = json!({"targets": name, "certificates": {"lifetime": "1h", "renewAfterPercent": 50}});
    bed.apply(rotation(&namespace, "name", short.clone())).await.unwrap();
    let now = followed(format!("{namespace}/name")).await;
    let time = |field: &str| now.data["status"]["certificate"][field].as_str().unwrap().parse::<Timestamp>().unwrap();
    let planned = time("renewAt").duration_since(time("issuedAt")).as_secs();
    assert!((24 * 60..=30 * 60).contains(&planned), "the shorter lifetime takes effect immediately: {planned} s");

    // An invalid policy is not active, and reports so.
    let zone = json!([{"start": "02:00", "duration": "1h", "timeZone": "Europe/Atlantis"}]);
    bed.apply(with(rotation(&namespace, "name", short), "/spec/windows", zone)).await.unwrap();
    bed.condition("RotationPolicy", Some(&namespace), "name", "Ready", ("False", "InvalidPolicy")).await;
    followed(format!("{namespace}/selector")).await;
}

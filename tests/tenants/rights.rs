//! Rights on a broker that a tenant wants to keep although the platform took them back.

use std::time::Duration;

use serde_json::json;

use crate::bed::{broker_connection, identity, label, policy, unique, until, with};
use crate::tenant::{Tenant, Victim, consume, is_revoked, patch_as, principal, publish};

/// A right that the platform lends by a label of the namespace.
async fn lent(tenant: &Tenant, name: &str, topic: &str) {
    label(&tenant.bed, &tenant.namespace, json!({"credence.dev/example": "quickstart"})).await;
    tenant.policy(name, topic, publish("app")).await;
    tenant.bed.ready("TopicPolicy", Some(&tenant.namespace), name).await;
    assert!(tenant.bed.acls(&tenant.principal("app")).contains("operation=WRITE"));
}

async fn take_back(tenant: &Tenant) {
    label(&tenant.bed, &tenant.namespace, json!({"credence.dev/example": null})).await;
}

#[tokio::test]
async fn mode_observe_keeps_no_right_that_was_taken_back() {
    let tenant = Tenant::new("observe").await;
    let victim = Victim::new(&tenant.bed, "observe").await;
    tenant.identity("app").await;
    lent(&tenant, "lent", "shop.observe").await;
    tenant.patch("TopicPolicy", "lent", json!({"spec": {"mode": "Observe"}})).await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    bed.condition("TopicPolicy", namespace, "lent", "Applied", ("True", "ObserveOnly")).await;
    assert!(bed.acls(&tenant.principal("app")).contains("operation=WRITE"), "what it may have stays in mode Observe");
    take_back(&tenant).await;
    bed.condition("TopicPolicy", namespace, "lent", "Accepted", ("False", "TopicNotAllowed")).await;
    is_revoked(bed, &tenant.principal("app")).await;
    victim.is_well(bed).await;
}

#[tokio::test]
async fn a_grant_that_is_edited_away_in_mode_observe_keeps_no_right_that_was_taken_back() {
    let tenant = Tenant::new("edited").await;
    let victim = Victim::new(&tenant.bed, "edited").await;
    tenant.identity("app").await;
    lent(&tenant, "lent", "shop.edited").await;
    // The policy itself stays accepted: it is about a topic that the namespace may own.
    let elsewhere = json!({"spec": {"mode": "Observe", "topic": {"name": "sandbox.edited"}}});
    tenant.patch("TopicPolicy", "lent", elsewhere).await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    let object = bed.condition("TopicPolicy", namespace, "lent", "Applied", ("True", "ObserveOnly")).await;
    assert!(object.data["status"]["plan"]["remove"].to_string().contains("shop.edited"), "{}", object.data["status"]);
    assert!(bed.acls(&tenant.principal("app")).contains("name=shop.edited"), "only observed");
    take_back(&tenant).await;
    is_revoked(bed, &tenant.principal("app")).await;
    victim.is_well(bed).await;
}

#[tokio::test]
async fn deletion_policy_orphan_keeps_no_right() {
    let tenant = Tenant::new("orphan").await;
    let victim = Victim::new(&tenant.bed, "orphan").await;
    tenant.identity("app").await;
    lent(&tenant, "lent", "shop.orphan").await;
    tenant.patch("TopicPolicy", "lent", json!({"spec": {"deletionPolicy": "Orphan"}})).await;
    tenant.own.delete("TopicPolicy", Some(&tenant.namespace), "lent").await;
    is_revoked(&tenant.bed, &tenant.principal("app")).await;
    take_back(&tenant).await;
    victim.is_well(&tenant.bed).await;
}

#[tokio::test]
async fn a_removed_finalizer_keeps_no_right() {
    let tenant = Tenant::new("stripped").await;
    let victim = Victim::new(&tenant.bed, "stripped").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    tenant.identity("app").await;
    // Rights on a broker that is away when the finalizer is removed.
    let broker = unique("stripped");
    let connection = |server: &str| broker_connection(&broker, server);
    bed.apply(connection(bed.env("KAFKA_BOOTSTRAP"))).await.unwrap();
    tenant.own.apply(identity(&tenant.namespace, "app", &["kafka", &broker])).await.unwrap();
    for name in ["kept", "stripped"] {
        let topic = policy(&tenant.namespace, name, &format!("sandbox.{name}"), publish("app"));
        tenant.own.apply(with(topic, "/spec/broker", json!(broker))).await.unwrap();
        bed.ready("TopicPolicy", namespace, name).await;
    }
    bed.apply(connection("127.0.0.1:1")).await.unwrap();
    bed.condition("BrokerConnection", None, &broker, "Ready", ("False", "BrokerUnreachable")).await;
    tenant.own.delete("TopicPolicy", namespace, "stripped").await;
    until("the pending cleanup to be reported", || async {
        let status = bed.get("TopicPolicy", namespace, "stripped").await.unwrap().data["status"].to_string();
        if status.contains("CleanupPending") { Ok(()) } else { Err(status) }
    })
    .await;
    tenant.patch("TopicPolicy", "stripped", json!({"metadata": {"finalizers": null}})).await;
    bed.apply(connection(bed.env("KAFKA_BOOTSTRAP"))).await.unwrap();
    bed.ready("BrokerConnection", None, &broker).await;
    until("the right to be revoked", || async {
        let acls = bed.acls(&tenant.principal("app"));
        if acls.contains("sandbox.stripped") { Err(acls) } else { Ok(()) }
    })
    .await;
    assert!(bed.acls(&tenant.principal("app")).contains("sandbox.kept"), "the other policy keeps its right");
    victim.is_well(bed).await;

    // With the finalizer of its last policy removed as well, the platform is asked: it could be a restored store.
    let (held, stripped) = (|| bed.get("BrokerConnection", None, &broker), json!({"metadata": {"finalizers": null}}));
    bed.apply(connection("127.0.0.1:1")).await.unwrap();
    bed.condition("BrokerConnection", None, &broker, "Ready", ("False", "BrokerUnreachable")).await;
    tenant.own.delete("TopicPolicy", namespace, "kept").await;
    tenant.patch("TopicPolicy", "kept", stripped).await;
    bed.apply(connection(bed.env("KAFKA_BOOTSTRAP"))).await.unwrap();
    bed.condition("BrokerConnection", None, &broker, "InSync", ("False", "AbsentPolicies")).await;
    let status = held().await.unwrap().data["status"].clone();
    assert_eq!(status["heldBack"]["policies"], json!([format!("{}/kept", tenant.namespace)]), "{status}");
    assert!(
        bed.acls(&tenant.principal("app")).contains("sandbox.kept"),
        "nothing is revoked before the platform says so"
    );
    let word = with(connection(bed.env("KAFKA_BOOTSTRAP")), "/spec/absentPolicies", json!("RevokeAll"));
    bed.apply(word).await.unwrap();
    is_revoked(bed, &tenant.principal("app")).await;
    bed.ready("BrokerConnection", None, &broker).await;
    bed.delete("BrokerConnection", None, &broker).await;
    until("the connection to be deleted", || async {
        held().await.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
    })
    .await;
}

#[tokio::test]
async fn what_an_administrator_removed_is_not_put_back_for_a_policy_that_observes() {
    let tenant = Tenant::new("removed").await;
    let victim = Victim::new(&tenant.bed, "removed").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    tenant.identity("app").await;
    tenant.policy("app", "sandbox.removed", publish("app")).await;
    bed.ready("TopicPolicy", namespace, "app").await;
    tenant.patch("TopicPolicy", "app", json!({"spec": {"mode": "Observe"}})).await;
    bed.condition("TopicPolicy", namespace, "app", "Applied", ("True", "ObserveOnly")).await;
    let app = tenant.principal("app");
    let right = ["--topic", "sandbox.removed", "--operation", "Write", "--allow-principal", &app];
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &right].concat());
    is_revoked(bed, &app).await;
    victim.is_well(bed).await;
}

#[tokio::test]
async fn an_identity_of_another_namespace_has_to_accept_a_grant() {
    let tenant = Tenant::new("consent").await;
    let victim = Victim::new(&tenant.bed, "consent").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    let grant = with(consume("app", &unique("hers")), "/0/identity/namespace", json!(victim.namespace));
    tenant.policy("push", "sandbox.hers-consent", grant).await;
    let object = bed.condition("TopicPolicy", namespace, "push", "Ready", ("False", "GrantNotAccepted")).await;
    let told = object.data["status"].to_string();
    assert!(told.contains(&format!("acceptFrom: [{}]", tenant.namespace)), "{told}");
    assert!(!bed.acls(&principal(&victim.namespace, "app")).contains("sandbox.hers-consent"));
    // The owner accepts, and takes it back.
    let accept = |from: &[&str]| json!({"spec": {"brokers": [{"name": "kafka", "acceptFrom": from}]}});
    patch_as(bed, "ServiceIdentity", Some(&victim.namespace), "app", &accept(&[&tenant.namespace])).await;
    bed.ready("TopicPolicy", namespace, "push").await;
    tenant.patch("TopicPolicy", "push", json!({"spec": {"mode": "Observe"}})).await;
    patch_as(bed, "ServiceIdentity", Some(&victim.namespace), "app", &accept(&[])).await;
    until("the right to end with the consent", || async {
        let acls = bed.acls(&principal(&victim.namespace, "app"));
        if acls.contains("sandbox.hers-consent") { Err(acls) } else { Ok(()) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    victim.is_well(bed).await;
}

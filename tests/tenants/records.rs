//! Records of what was applied, and what a tenant writes to look like one.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::bed::{unique, until, with};
use crate::tenant::{Tenant, Victim, consume, patch_as, principal, publish};

#[tokio::test]
async fn a_forged_status_adds_and_removes_nothing() {
    let tenant = Tenant::new("forged").await;
    let victim = Victim::new(&tenant.bed, "forged").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    tenant.identity("app").await;
    let by_hand = ["--topic", "payments.forged", "--operation", "Read", "--allow-principal", "User:CN=legacy"];
    bed.kafka("kafka-acls", &[&["--add"][..], &by_hand].concat());
    tenant.policy("forge", "sandbox.forged", publish("app")).await;
    bed.ready("TopicPolicy", namespace, "forge").await;
    let right = |principal: &str, pattern: &str, name: &str| json!({"principal": principal, "operation": "Read", "resource": "Topic", "pattern": pattern, "name": name});
    let topic = format!("sandbox.{}", victim.namespace);
    let applied = json!([
        right(&tenant.principal("app"), "Prefixed", "payments."),
        right("User:*", "Literal", &topic),
        right("User:CN=legacy", "Literal", "payments.forged"),
    ]);
    let with_status = tenant.with_status().await;
    for mode in ["Observe", "Enforce"] {
        let api = with_status.api("TopicPolicy", namespace);
        let forged = json!({"status": {"applied": applied}});
        api.patch_status("forge", &PatchParams::default(), &Patch::Merge(&forged)).await.unwrap();
        tenant.patch("TopicPolicy", "forge", json!({"spec": {"mode": mode}})).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(bed.acls("User:*").trim(), "", "mode {mode}");
        assert!(!bed.acls(&tenant.principal("app")).contains("payments."), "mode {mode}");
        assert!(bed.acls("User:CN=legacy").contains("payments.forged"), "mode {mode}: made by hand");
    }
    tenant.own.delete("TopicPolicy", namespace, "forge").await;
    until("the policy to be deleted", || async {
        bed.get("TopicPolicy", namespace, "forge").await.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
    })
    .await;
    assert!(bed.acls("User:CN=legacy").contains("payments.forged"));
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &by_hand].concat());
    victim.is_well(bed).await;
}

#[tokio::test]
async fn an_acl_that_was_made_by_hand_outlives_a_grant_that_names_it() {
    let tenant = Tenant::new("adopt").await;
    let victim = Victim::new(&tenant.bed, "adopt").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    let (group, app) = (unique("legacy"), principal(&victim.namespace, "app"));
    let by_hand = ["--group", &group, "--operation", "Read", "--allow-principal", &app];
    bed.kafka("kafka-acls", &[&["--add"][..], &by_hand].concat());
    // Even where the owner of the identity accepts the grant.
    let accept = json!({"spec": {"brokers": [{"name": "kafka", "acceptFrom": [tenant.namespace]}]}});
    patch_as(bed, "ServiceIdentity", Some(&victim.namespace), "app", &accept).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let grant = with(consume("app", &group), "/0/identity/namespace", json!(victim.namespace));
    tenant.policy("adopt", "sandbox.hers-adopt", grant).await;
    bed.ready("TopicPolicy", namespace, "adopt").await;
    tenant.own.delete("TopicPolicy", namespace, "adopt").await;
    until("the policy to be deleted", || async {
        bed.get("TopicPolicy", namespace, "adopt").await.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
    })
    .await;
    let acls = bed.acls(&app);
    assert!(acls.contains(&format!("name={group}")) && !acls.contains("sandbox.hers-adopt"), "{acls}");
    victim.is_well(bed).await;
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &by_hand].concat());
}

#[tokio::test]
async fn a_tenant_cannot_read_or_write_records() {
    let tenant = Tenant::new("shards").await;
    let maps = tenant.own.api("ConfigMap", Some("credence-system"));
    assert!(maps.list(&kube::api::ListParams::default()).await.unwrap_err().to_string().contains("forbidden"));
    let name = "broker-records.kafka.0";
    tenant.bed.get("ConfigMap", Some("credence-system"), name).await.expect("the records of the broker");
    let forged = Patch::Merge(json!({"data": {"records.json": "{}"}}));
    assert!(maps.patch(name, &PatchParams::default(), &forged).await.is_err());
}

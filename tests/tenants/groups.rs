//! Consumer groups: only who may hold one holds it, and keeps it.

use std::time::Duration;

use serde_json::json;

use crate::bed::{broker_connection, identity, policy, unique, with};
use crate::tenant::{Tenant, Victim, consume, principal};

#[tokio::test]
async fn an_older_policy_takes_no_group_from_a_victim() {
    let tenant = Tenant::new("older").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    tenant.identity("app").await;
    // Older than the victim: one that is accepted, and one that is refused.
    tenant.policy("own", "sandbox.older", consume("app", &unique("own"))).await;
    bed.ready("TopicPolicy", namespace, "own").await;
    tenant.policy("refused", "not.mine", consume("app", &unique("refused"))).await;
    bed.condition("TopicPolicy", namespace, "refused", "Ready", ("False", "TopicNotAllowed")).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let victim = Victim::new(bed, "older").await;
    for name in ["own", "refused"] {
        tenant.patch("TopicPolicy", name, json!({"spec": {"grants": consume("app", &victim.group)}})).await;
    }
    bed.condition("TopicPolicy", namespace, "own", "Ready", ("False", "ConsumerGroupClaimed")).await;
    victim.is_well(bed).await;
    assert!(!bed.acls(&tenant.principal("app")).contains(&victim.group));
}

#[tokio::test]
async fn a_group_that_a_refused_policy_names_is_free() {
    let tenant = Tenant::new("squat").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    tenant.identity("app").await;
    let group = unique("wanted");
    tenant.policy("squat", "not.mine", consume("app", &group)).await;
    bed.condition("TopicPolicy", namespace, "squat", "Ready", ("False", "TopicNotAllowed")).await;
    let other = Victim::new(bed, "squat").await;
    bed.apply(policy(&other.namespace, "wants", "sandbox.squat", consume("app", &group))).await.unwrap();
    bed.ready("TopicPolicy", Some(&other.namespace), "wants").await;
    assert!(bed.acls(&principal(&other.namespace, "app")).contains(&group));
}

#[tokio::test]
async fn a_group_is_held_by_the_namespace_of_the_consumer() {
    let tenant = Tenant::new("shadow").await;
    let victim = Victim::new(&tenant.bed, "shadow").await;
    let (bed, namespace) = (&tenant.bed, Some(tenant.namespace.as_str()));
    tenant.identity("app").await;
    // A grant to the victim makes its group no group of the tenant.
    let own = consume("app", &victim.group)[0].clone();
    let hers = with(own.clone(), "/identity/namespace", json!(victim.namespace));
    tenant.policy("shadow", "sandbox.shadow", json!([hers, own])).await;
    let object = bed.condition("TopicPolicy", namespace, "shadow", "Ready", ("False", "GrantNotAccepted")).await;
    assert_eq!(object.data["status"]["grants"][1]["state"], "Refused", "{}", object.data["status"]);
    victim.is_well(bed).await;
    assert!(!bed.acls(&tenant.principal("app")).contains(&victim.group));
}

#[tokio::test]
async fn groups_belong_to_the_namespaces_that_the_platform_gave_them() {
    let tenant = Tenant::new("prefixes").await;
    let victim = Victim::new(&tenant.bed, "prefixes").await;
    let (bed, namespace, broker) = (&tenant.bed, Some(tenant.namespace.as_str()), unique("prefixes"));
    let of = |namespace: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let access = json!([
        {"namespaceSelector": {}, "topicPrefixes": ["sandbox."]},
        {"namespaceSelector": of(&victim.namespace), "topicPrefixes": ["x."], "consumerGroupPrefixes": ["hers-"]},
    ]);
    bed.apply(with(broker_connection(&broker, bed.env("KAFKA_BOOTSTRAP")), "/spec/access", access)).await.unwrap();
    let group = unique("hers");
    let on_broker = |policy| with(policy, "/spec/broker", json!(broker));
    for namespace in [&tenant.namespace, &victim.namespace] {
        bed.apply(identity(namespace, "app", &["kafka", &broker])).await.unwrap();
    }
    let squat = policy(&tenant.namespace, "squat", "sandbox.prefixes", consume("app", &group));
    tenant.own.apply(on_broker(squat)).await.unwrap();
    bed.condition("TopicPolicy", namespace, "squat", "Ready", ("False", "ConsumerGroupNotAllowed")).await;
    let wants = policy(&victim.namespace, "wants", "sandbox.prefixes", consume("app", &group));
    bed.apply(on_broker(wants)).await.unwrap();
    bed.ready("TopicPolicy", Some(&victim.namespace), "wants").await;
    for (namespace, name) in [(&tenant.namespace, "squat"), (&victim.namespace, "wants")] {
        bed.delete("TopicPolicy", Some(namespace), name).await;
    }
    bed.delete("BrokerConnection", None, &broker).await;
}

#[tokio::test]
async fn a_group_has_visible_characters_only() {
    let tenant = Tenant::new("characters").await;
    for group in ["two\nlines", "right\u{202e}to left", "a space", "Gr\u{fc}n"] {
        let refused = tenant.own.apply(policy(&tenant.namespace, "odd", "sandbox.odd", consume("app", group))).await;
        assert!(refused.unwrap_err().contains("consumerGroup"), "{group:?}");
    }
}

//! Topic policies and their ACLs on a real Kafka, checked with Kafka's own tools.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{Bed, broker_connection, identity, policy, unique, until, with};

fn publish(name: &str) -> Value {
    json!([{"identity": {"name": name}, "actions": ["Publish"]}])
}

fn principal(namespace: &str, name: &str) -> String {
    format!("User:CN={name},OU={namespace},O=demo.credence.example")
}

async fn with_account(bed: &Bed, test: &str) -> String {
    let namespace = bed.namespace(test).await;
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    namespace
}

async fn wait_until_deleted(bed: &Bed, namespace: &str, name: &str) {
    until(&format!("the TopicPolicy {name} to be deleted"), || async {
        match bed.get("TopicPolicy", Some(namespace), name).await {
            None => Ok(()),
            Some(left) => Err(left.data["status"].to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_granted_producer_publishes_and_another_is_refused() {
    let bed = Bed::open().await;
    let namespace = with_account(&bed, "publish").await;
    bed.apply(identity(&namespace, "stranger", &["kafka"])).await.unwrap();
    let topic = format!("sandbox.{namespace}");
    bed.kafka("kafka-topics", &["--create", "--topic", &topic]);
    bed.apply(policy(&namespace, "orders", &topic, publish("orders"))).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    bed.ready("ServiceIdentity", Some(&namespace), "stranger").await;
    let (published, output) = bed.publish(&bed.mount(&namespace, "orders.kafka").await, &topic);
    assert!(published, "{output}");
    let (published, output) = bed.publish(&bed.mount(&namespace, "stranger.kafka").await, &topic);
    assert!(!published && output.contains("TOPIC_AUTHORIZATION_FAILED"), "{output}");
}

#[tokio::test]
async fn a_policy_with_a_foreign_environment_or_topic_is_refused() {
    let bed = Bed::open().await;
    let namespace = with_account(&bed, "refused").await;
    let good = policy(&namespace, "orders", "sandbox.refused", publish("orders"));
    let elsewhere = with(with(good.clone(), "/spec/environment", json!("production")), "/metadata/name", json!("env"));
    bed.apply(elsewhere).await.unwrap();
    bed.condition("TopicPolicy", Some(&namespace), "env", "Ready", ("False", "EnvironmentMismatch")).await;
    for (name, topic) in [("outside", json!({"name": "shop.orders"})), ("wide", json!({"prefix": "sand"}))] {
        let outside = with(with(good.clone(), "/spec/topic", topic), "/metadata/name", json!(name));
        bed.apply(outside).await.unwrap();
        let object = bed.condition("TopicPolicy", Some(&namespace), name, "Ready", ("False", "TopicNotAllowed")).await;
        assert!(object.data["status"].to_string().contains("sandbox."), "the message names the allowed topics");
    }
    let twice = json!([publish("orders")[0], publish("orders")[0]]);
    bed.apply(with(with(good, "/spec/grants", twice), "/metadata/name", json!("twice"))).await.unwrap();
    bed.condition("TopicPolicy", Some(&namespace), "twice", "Ready", ("False", "DuplicateGrant")).await;
    assert_eq!(bed.acls(&principal(&namespace, "orders")).trim(), "", "the broker has no ACL of the refused policies");
}

#[tokio::test]
async fn a_grant_starts_and_ends_with_its_identity() {
    let bed = Bed::open().await;
    let namespace = with_account(&bed, "missing").await;
    let grants = json!([publish("orders")[0], publish("late")[0]]);
    bed.apply(policy(&namespace, "both", "sandbox.missing", grants)).await.unwrap();
    let object = bed.condition("TopicPolicy", Some(&namespace), "both", "Ready", ("False", "IdentityNotFound")).await;
    assert_eq!(object.data["status"]["grants"][0]["state"], "Applied", "the other grant is not affected");
    assert_eq!(object.data["status"]["grants"][1]["state"], "Refused");
    bed.apply(identity(&namespace, "late", &[])).await.unwrap();
    bed.condition("TopicPolicy", Some(&namespace), "both", "Ready", ("False", "IdentityHasNoAccount")).await;
    bed.apply(identity(&namespace, "late", &["kafka"])).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "both").await;
    assert!(bed.acls(&principal(&namespace, "late")).contains("operation=WRITE"));
    bed.delete("ServiceIdentity", Some(&namespace), "late").await;
    bed.condition("TopicPolicy", Some(&namespace), "both", "Ready", ("False", "IdentityNotFound")).await;
    assert_eq!(bed.acls(&principal(&namespace, "late")).trim(), "", "the ACLs of a deleted identity are revoked");
}

#[tokio::test]
async fn an_acl_of_two_policies_stays_until_both_are_deleted() {
    let bed = Bed::open().await;
    let namespace = with_account(&bed, "overlap").await;
    let grants =
        json!([{"identity": {"name": "orders"}, "actions": ["Publish", "Consume"], "consumerGroup": "overlap"}]);
    bed.apply(policy(&namespace, "one", "sandbox.overlap", publish("orders"))).await.unwrap();
    bed.apply(policy(&namespace, "two", "sandbox.overlap", grants)).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "one").await;
    bed.ready("TopicPolicy", Some(&namespace), "two").await;
    bed.delete("TopicPolicy", Some(&namespace), "two").await;
    wait_until_deleted(&bed, &namespace, "two").await;
    let left = bed.acls(&principal(&namespace, "orders"));
    assert!(left.contains("operation=WRITE"), "the other policy still grants it: {left}");
    assert!(!left.contains("operation=READ"), "no policy grants this any more: {left}");
    bed.delete("TopicPolicy", Some(&namespace), "one").await;
    wait_until_deleted(&bed, &namespace, "one").await;
    assert_eq!(bed.acls(&principal(&namespace, "orders")).trim(), "");
}

#[tokio::test]
async fn narrowing_a_policy_revokes_the_removed_acls() {
    let bed = Bed::open().await;
    let namespace = with_account(&bed, "narrow").await;
    bed.apply(policy(&namespace, "orders", "sandbox.narrow-a", publish("orders"))).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    let prefix = with(
        policy(&namespace, "orders", "", publish("orders")),
        "/spec/topic",
        json!({"prefix": "sandbox.narrow-b."}),
    );
    bed.apply(prefix).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    let acls = bed.acls(&principal(&namespace, "orders"));
    assert!(acls.contains("name=sandbox.narrow-b., patternType=PREFIXED"), "{acls}");
    assert!(!acls.contains("narrow-a"), "{acls}");
}

#[tokio::test]
async fn observe_mode_reports_a_plan_and_changes_nothing() {
    let bed = Bed::open().await;
    let namespace = with_account(&bed, "observe").await;
    let observed =
        with(policy(&namespace, "orders", "sandbox.observe", publish("orders")), "/spec/mode", json!("Observe"));
    bed.apply(observed.clone()).await.unwrap();
    let object = bed.condition("TopicPolicy", Some(&namespace), "orders", "Applied", ("True", "ObserveOnly")).await;
    let line = format!("{}: Write on topic sandbox.observe", principal(&namespace, "orders"));
    assert_eq!(object.data["status"]["plan"]["add"], json!([line]));
    assert_eq!(object.data["status"]["grants"][0]["state"], "Planned");
    assert_eq!(bed.acls(&principal(&namespace, "orders")).trim(), "");
    bed.apply(with(observed, "/spec/mode", json!("Enforce"))).await.unwrap();
    bed.condition("TopicPolicy", Some(&namespace), "orders", "Applied", ("True", "GrantsApplied")).await;
    assert!(bed.acls(&principal(&namespace, "orders")).contains("operation=WRITE"));
}

/// A connection to the Kafka of the bed, whose policies may leave their rights.
fn connection(bed: &Bed, name: &str) -> Value {
    with(broker_connection(name, bed.env("KAFKA_BOOTSTRAP")), "/spec/allowOrphan", json!(true))
}

#[tokio::test]
async fn an_orphaned_policy_leaves_its_acls_where_its_connection_allows_that() {
    let bed = Bed::open().await;
    let (namespace, broker) = (bed.namespace("orphan").await, unique("orphan"));
    bed.apply(connection(&bed, &broker)).await.unwrap();
    bed.apply(identity(&namespace, "orders", &["kafka", &broker])).await.unwrap();
    for (broker, topic) in [(broker.as_str(), "sandbox.left"), ("kafka", "sandbox.revoked")] {
        let orphan = with(policy(&namespace, "orders", topic, publish("orders")), "/spec/broker", json!(broker));
        bed.apply(with(orphan, "/spec/deletionPolicy", json!("Orphan"))).await.unwrap();
        let object = bed.ready("TopicPolicy", Some(&namespace), "orders").await;
        let told = object.data["status"].to_string().contains("counts as Delete");
        assert_eq!(told, broker == "kafka", "{}", object.data["status"]);
        bed.delete("TopicPolicy", Some(&namespace), "orders").await;
        wait_until_deleted(&bed, &namespace, "orders").await;
    }
    // Longer than rights of policies that do not exist are kept.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let acls = bed.acls(&principal(&namespace, "orders"));
    assert!(acls.contains("sandbox.left") && !acls.contains("sandbox.revoked"), "{acls}");
    let orders = principal(&namespace, "orders");
    let topic = ["--topic", "sandbox.left", "--operation", "Write", "--allow-principal", &orders];
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &topic].concat());
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
    bed.delete("BrokerConnection", None, &broker).await;
}

#[tokio::test]
async fn lost_acls_are_restored_and_foreign_acls_are_reported() {
    let bed = Bed::open().await;
    let namespace = with_account(&bed, "drift").await;
    bed.apply(policy(&namespace, "orders", "sandbox.drift", publish("orders"))).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    let orders = principal(&namespace, "orders");
    let topic = ["--topic", "sandbox.drift", "--operation", "Write", "--allow-principal", &orders];
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &topic].concat());
    let theirs = ["--topic", "sandbox.theirs", "--operation", "Read", "--allow-principal", &orders];
    bed.kafka("kafka-acls", &[&["--add"][..], &theirs].concat());
    tokio::time::sleep(Duration::from_secs(1)).await;
    until("the drift to be repaired", || async {
        let acls = bed.acls(&orders);
        if acls.contains("operation=WRITE") { Ok(()) } else { Err(acls) }
    })
    .await;
    until("the foreign ACL to be reported", || async {
        let broker = bed.get("BrokerConnection", None, "kafka").await.unwrap();
        let listed = broker.data["status"]["unmanaged"].to_string();
        if listed.contains(&format!("{orders}: Read on topic sandbox.theirs")) { Ok(()) } else { Err(listed) }
    })
    .await;
    bed.delete("TopicPolicy", Some(&namespace), "orders").await;
    wait_until_deleted(&bed, &namespace, "orders").await;
    let left = bed.acls(&orders);
    assert!(left.contains("operation=READ") && !left.contains("operation=WRITE"), "{left}");
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &theirs].concat());
}

#[tokio::test]
async fn a_consumer_group_belongs_to_one_namespace() {
    let bed = Bed::open().await;
    let (first, second) = (with_account(&bed, "group").await, with_account(&bed, "group").await);
    let group = unique("ledger");
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Consume"], "consumerGroup": group}]);
    bed.apply(policy(&first, "orders", "sandbox.group", grants.clone())).await.unwrap();
    bed.ready("TopicPolicy", Some(&first), "orders").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bed.apply(policy(&second, "orders", "sandbox.group", grants)).await.unwrap();
    bed.condition("TopicPolicy", Some(&second), "orders", "Ready", ("False", "ConsumerGroupClaimed")).await;
    bed.delete("TopicPolicy", Some(&first), "orders").await;
    bed.ready("TopicPolicy", Some(&second), "orders").await;
}

#[tokio::test]
async fn deletion_waits_for_an_absent_broker_unless_orphaned() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("away").await;
    let broker = unique("away");
    let connection = connection(&bed, &broker);
    bed.apply(connection.clone()).await.unwrap();
    bed.apply(identity(&namespace, "orders", &[&broker])).await.unwrap();
    let topic = policy(&namespace, "orders", "sandbox.away", publish("orders"));
    let topic = with(topic, "/spec/broker", json!(broker));
    bed.apply(topic.clone()).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    let away = with(connection, "/spec/kafka/bootstrapServers", json!(["127.0.0.1:1"]));
    bed.apply(away).await.unwrap();
    bed.condition("BrokerConnection", None, &broker, "Ready", ("False", "BrokerUnreachable")).await;
    bed.delete("TopicPolicy", Some(&namespace), "orders").await;
    until("the pending cleanup to be reported", || async {
        let object = bed.get("TopicPolicy", Some(&namespace), "orders").await.expect("the deletion is pending");
        let status = object.data["status"].to_string();
        if status.contains("CleanupPending") && status.contains("Orphan") { Ok(()) } else { Err(status) }
    })
    .await;
    bed.apply(with(topic, "/spec/deletionPolicy", json!("Orphan"))).await.unwrap();
    wait_until_deleted(&bed, &namespace, "orders").await;
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
    bed.delete("BrokerConnection", None, &broker).await;
    let topic = ["--topic", "sandbox.away", "--operation", "Write", "--allow-principal"];
    bed.kafka(
        "kafka-acls",
        &[&["--remove", "--force"][..], &topic, &[principal(&namespace, "orders").as_str()]].concat(),
    );
}

#[tokio::test]
async fn a_broker_without_a_usable_credential_recovers() {
    let bed = Bed::open().await;
    let name = unique("cred");
    let connection = broker_connection(&name, bed.env("KAFKA_BOOTSTRAP"));
    bed.apply(with(connection, "/spec/kafka/adminSecretRef/name", json!(name))).await.unwrap();
    bed.condition("BrokerConnection", None, &name, "Ready", ("False", "AdminSecretNotFound")).await;
    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "credence-system"}, "data": data});
    bed.apply(secret(json!({"tls.crt": "bm90aGluZw=="}))).await.unwrap();
    bed.condition("BrokerConnection", None, &name, "Ready", ("False", "AdminSecretInvalid")).await;
    let good = bed.get("Secret", Some("credence-system"), "kafka-admin").await.unwrap().data["data"].clone();
    bed.apply(secret(good)).await.unwrap();
    bed.ready("BrokerConnection", None, &name).await;
    bed.delete("BrokerConnection", None, &name).await;
}

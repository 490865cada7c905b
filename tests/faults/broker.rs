//! A broker that is stopped, slow, loses answers, or withdraws the operator's rights.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::bed::{Bed, broker_connection, identity, policy, unique, until, with};
use crate::operator::Operator;
use crate::proxy::{Mode, Proxy};

fn publish(name: &str) -> Value {
    json!([{"identity": {"name": name}, "actions": ["Publish"]}])
}

fn principal(namespace: &str, name: &str) -> String {
    format!("User:CN={name},OU={namespace},O=demo.credence.example")
}

pub async fn wait_until_deleted(bed: &Bed, kind: &str, namespace: Option<&str>, name: &str) {
    until(&format!("{kind} {name} to be deleted"), || async {
        bed.get(kind, namespace, name).await.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
    })
    .await;
}

/// A `BrokerConnection` to the Kafka of the bed through another address.
pub fn connection(name: &str, address: &str, secret: &str) -> Value {
    with(broker_connection(name, address), "/spec/kafka/adminSecretRef/name", json!(secret))
}

pub fn on(broker: &str, policy: Value) -> Value {
    with(policy, "/spec/broker", json!(broker))
}

#[tokio::test]
async fn a_stopped_broker_delays_only_objects_that_need_it() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("stopped").await;
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    for name in ["kept", "deleted"] {
        bed.apply(policy(&namespace, name, &format!("sandbox.{name}"), publish("orders"))).await.unwrap();
        bed.ready("TopicPolicy", Some(&namespace), name).await;
    }
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kept = bed.get("TopicPolicy", Some(&namespace), "kept").await.unwrap();

    bed.part("stop", "kafka");
    bed.condition("BrokerConnection", None, "kafka", "Ready", ("False", "BrokerUnreachable")).await;
    bed.apply(policy(&namespace, "new", "sandbox.new", publish("orders"))).await.unwrap();
    bed.condition("TopicPolicy", Some(&namespace), "new", "Ready", ("False", "BrokerUnreachable")).await;
    bed.delete("TopicPolicy", Some(&namespace), "deleted").await;
    let pending = until("the pending cleanup to be reported with its age", || async {
        let object = bed
            .get("TopicPolicy", Some(&namespace), "deleted")
            .await
            .expect("the deletion waits for its ACLs to be revoked");
        let status = object.data["status"].to_string();
        if status.contains("CleanupPending") { Ok(status) } else { Err(status) }
    })
    .await;
    assert!(pending.contains("deleted at 20"), "{pending}");
    let began = Instant::now();
    bed.apply(identity(&namespace, "alone", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "alone").await;
    assert!(began.elapsed() < Duration::from_secs(2), "a certificate does not need the broker");
    bed.apply(identity(&namespace, "later", &["kafka"])).await.unwrap();
    let accepted = ("False", "BrokerUnreachable");
    bed.condition("ServiceIdentity", Some(&namespace), "later", "BrokerAccess", accepted).await;
    assert!(bed.secret(&namespace, "later.kafka").await.is_some(), "its credential is issued anyway");

    bed.part("start", "kafka");
    bed.ready("TopicPolicy", Some(&namespace), "new").await;
    bed.ready("ServiceIdentity", Some(&namespace), "later").await;
    wait_until_deleted(&bed, "TopicPolicy", Some(&namespace), "deleted").await;
    let acls = bed.acls(&principal(&namespace, "orders"));
    assert!(
        acls.contains("sandbox.kept") && acls.contains("sandbox.new") && !acls.contains("sandbox.deleted"),
        "{acls}"
    );
    let after = bed.get("TopicPolicy", Some(&namespace), "kept").await.unwrap();
    assert_eq!(after.metadata.resource_version, kept.metadata.resource_version, "an active policy is not written");
}

#[tokio::test]
async fn a_lost_answer_of_the_broker_leaves_no_wrong_acl() {
    let bed = Bed::open().await;
    // The periodic comparison with the broker must not interfere.
    let _operator = Operator::start(&bed, &["--broker-resync-seconds", "3600"], &[]).await;
    let namespace = bed.namespace("lost").await;
    let (proxy, broker) = (Proxy::to(bed.env("KAFKA_BOOTSTRAP")).await, unique("lost"));
    bed.apply(connection(&broker, &proxy.address, "kafka-admin")).await.unwrap();
    bed.apply(identity(&namespace, "orders", &[&broker])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let orders = principal(&namespace, "orders");
    let interrupted = || bed.condition("BrokerConnection", None, &broker, "Ready", ("False", "BrokerUnreachable"));

    proxy.set(Mode::LoseAnswers);
    bed.apply(on(&broker, policy(&namespace, "orders", "sandbox.lost", publish("orders")))).await.unwrap();
    interrupted().await;
    let acls = bed.acls(&orders);
    assert!(acls.contains("operation=WRITE"), "Kafka made the change and its answer was lost: {acls}");
    proxy.set(Mode::Pass);
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    bed.ready("BrokerConnection", None, &broker).await;

    proxy.set(Mode::LoseAnswers);
    bed.delete("TopicPolicy", Some(&namespace), "orders").await;
    interrupted().await;
    assert_eq!(bed.acls(&orders).trim(), "", "Kafka made the change and its answer was lost");
    proxy.set(Mode::Pass);
    wait_until_deleted(&bed, "TopicPolicy", Some(&namespace), "orders").await;
    assert_eq!(bed.acls(&orders).trim(), "");
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
    bed.delete("BrokerConnection", None, &broker).await;
}

#[tokio::test]
async fn objects_get_ready_with_a_slow_unreliable_broker() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("slow").await;
    let (proxy, broker) = (Proxy::to(bed.env("KAFKA_BOOTSTRAP")).await, unique("slow"));
    bed.apply(connection(&broker, &proxy.address, "kafka-admin")).await.unwrap();
    bed.ready("BrokerConnection", None, &broker).await;
    proxy.set(Mode::Slow(Duration::from_millis(150)));
    let names: Vec<String> = (0..10).map(|number| format!("service-{number}")).collect();
    for name in &names {
        bed.apply(identity(&namespace, name, &[&broker])).await.unwrap();
        bed.apply(on(&broker, policy(&namespace, name, &format!("sandbox.{name}"), publish(name)))).await.unwrap();
    }
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        proxy.cut(Mode::Slow(Duration::from_millis(150))).await;
    }
    proxy.set(Mode::Pass);
    for name in &names {
        bed.ready("TopicPolicy", Some(&namespace), name).await;
        bed.ready("ServiceIdentity", Some(&namespace), name).await;
        let acls = bed.acls(&principal(&namespace, name));
        assert_eq!(acls.matches("operation=").count(), 1, "{acls}");
    }
    for name in &names {
        bed.delete("TopicPolicy", Some(&namespace), name).await;
        wait_until_deleted(&bed, "TopicPolicy", Some(&namespace), name).await;
        bed.delete("ServiceIdentity", Some(&namespace), name).await;
    }
    bed.delete("BrokerConnection", None, &broker).await;
}

#[tokio::test]
async fn a_missing_alter_right_is_reported_and_nothing_is_ready() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("rights").await;
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    bed.apply(policy(&namespace, "before", "sandbox.before", publish("orders"))).await.unwrap();
    bed.apply(policy(&namespace, "deleted", "sandbox.deleted", publish("orders"))).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "before").await;
    bed.ready("TopicPolicy", Some(&namespace), "deleted").await;
    let right = |verb: &str, operation: &str| {
        let cluster = ["--cluster", "--operation", operation, "--allow-principal", "User:CN=credence-admin"];
        let verb: &[&str] = if verb == "remove" { &["--remove", "--force"] } else { &["--add"] };
        bed.kafka("kafka-acls", &[verb, &cluster].concat());
    };

    right("remove", "Alter");
    let reported = bed.condition("BrokerConnection", None, "kafka", "Authorized", ("False", "BrokerRefused")).await;
    assert!(reported.data["status"].to_string().contains("lacks Alter"), "{}", reported.data["status"]);
    let connected = reported.data["status"]["conditions"].as_array().unwrap();
    assert!(connected.iter().any(|it| it["type"] == "Connected" && it["status"] == "True"), "the broker is connected");
    bed.apply(policy(&namespace, "after", "sandbox.after", publish("orders"))).await.unwrap();
    let failed = bed.condition("TopicPolicy", Some(&namespace), "after", "Ready", ("False", "GrantsFailed")).await;
    assert!(failed.data["status"].to_string().contains("Alter"), "{}", failed.data["status"]);
    assert_eq!(failed.data["status"]["grants"][0]["state"], "Failed");
    bed.delete("TopicPolicy", Some(&namespace), "deleted").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waits = bed.get("TopicPolicy", Some(&namespace), "deleted").await.expect("its ACLs still exist");
    assert!(waits.data["status"].to_string().contains("CleanupPending"), "{}", waits.data["status"]);
    bed.ready("TopicPolicy", Some(&namespace), "before").await;

    right("remove", "Describe");
    bed.condition("BrokerConnection", None, "kafka", "Connected", ("False", "BrokerRefused")).await;
    right("add", "Describe");
    right("add", "Alter");
    bed.ready("BrokerConnection", None, "kafka").await;
    bed.ready("TopicPolicy", Some(&namespace), "after").await;
    wait_until_deleted(&bed, "TopicPolicy", Some(&namespace), "deleted").await;
}

#[tokio::test]
async fn an_expired_operator_credential_is_reported_and_replaced() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let (namespace, name) = (bed.namespace("expires").await, unique("expires"));
    let proxy = Proxy::to(bed.env("KAFKA_BOOTSTRAP")).await;
    let expires = Timestamp::now().as_second() + 8;
    bed.apply(admin_secret(&bed, &name, expires)).await.unwrap();
    bed.apply(connection(&name, &proxy.address, &name)).await.unwrap();
    bed.apply(identity(&namespace, "orders", &[&name])).await.unwrap();
    let topic = |topic: &str| on(&name, policy(&namespace, topic, &format!("sandbox.{topic}"), publish("orders")));
    bed.apply(topic("before")).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "before").await;
    let object = bed.get("BrokerConnection", None, &name).await.unwrap();
    let at = Timestamp::from_second(expires).unwrap().to_string();
    assert_eq!(object.data["status"]["credentialExpiresAt"], at.as_str());
    let reported = bed.condition("BrokerConnection", None, &name, "Ready", ("False", "AdminSecretInvalid")).await;
    assert!(reported.data["status"].to_string().contains(&format!("expired at {at}")), "{}", reported.data["status"]);

    proxy.cut(Mode::Pass).await;
    bed.apply(topic("after")).await.unwrap();
    let reported = bed.condition("TopicPolicy", Some(&namespace), "after", "Ready", ("False", "LoginRefused")).await;
    assert!(reported.data["status"].to_string().contains("the operator's own"), "{}", reported.data["status"]);
    bed.ready("TopicPolicy", Some(&namespace), "before").await;
    // Credentials of clients are still renewed.
    bed.delete("Secret", Some(&namespace), &format!("orders.{name}")).await;
    until("the credential of the client", || async {
        bed.secret(&namespace, &format!("orders.{name}")).await.ok_or_else(|| "it does not exist".to_owned())
    })
    .await;

    bed.apply(admin_secret(&bed, &name, expires + 3600)).await.unwrap();
    bed.ready("BrokerConnection", None, &name).await;
    bed.ready("TopicPolicy", Some(&namespace), "after").await;
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    for topic in ["before", "after"] {
        bed.delete("TopicPolicy", Some(&namespace), topic).await;
        wait_until_deleted(&bed, "TopicPolicy", Some(&namespace), topic).await;
    }
    bed.delete("BrokerConnection", None, &name).await;
}

/// A credential of the operator's principal with this expiry.
fn admin_secret(bed: &Bed, name: &str, expires: i64) -> Value {
    let read = |file: &str| std::fs::read_to_string(format!("{}/pki/{file}", bed.env("BED_DIR"))).unwrap();
    let authority = read("kafka-ca.crt");
    let issuer = Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(&read("kafka-ca.key")).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "credence-admin");
    params.not_before = time::OffsetDateTime::from_unix_timestamp(expires - 7200).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(expires).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "credence-system"},
        "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem(), "ca.crt": authority},
    })
}

//! Webhooks whose target is a Kafka topic, checked with Kafka's own tools.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bed::{Bed, identity, manifest, policy, run, until, with};
use crate::hooks::{Sender, signing_key};
use crate::webhook::audit;

fn endpoint(namespace: &str, name: &str, topic: &str) -> Value {
    let spec = json!({
        "path": format!("/{namespace}/{name}"),
        "verification": {"standardWebhooks": {}},
        "target": {"kafka": {"broker": "kafka", "serviceIdentity": "hooks", "topic": topic}},
        "forwardHeaders": ["webhook-timestamp"],
    });
    manifest("WebhookEndpoint", Some(namespace), name, spec)
}

/// A namespace whose identity has an account, and a new topic that nobody has the right to write to.
async fn namespace(bed: &Bed, test: &str, partitions: &str, config: &str) -> (String, String) {
    let namespace = bed.namespace(test).await;
    let topic = format!("sandbox.{namespace}");
    bed.kafka("kafka-topics", &["--create", "--topic", &topic, "--partitions", partitions, "--config", config]);
    bed.apply(identity(&namespace, "hooks", &["kafka"])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "hooks").await;
    (namespace, topic)
}

async fn grant(bed: &Bed, namespace: &str, topic: &str) {
    let grants = json!([{"identity": {"name": "hooks"}, "actions": ["Publish"]}]);
    bed.apply(policy(namespace, "hooks", topic, grants)).await.unwrap();
    bed.ready("TopicPolicy", Some(namespace), "hooks").await;
}

/// Creates an endpoint, waits until it is served, and returns its key.
async fn serve(bed: &Bed, namespace: &str, name: &str, topic: &str) -> String {
    bed.apply(endpoint(namespace, name, topic)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(namespace), name).await;
    signing_key(bed, namespace, name).await
}

/// Partition, headers, key and value of each record from the beginning, read with Kafka's console consumer.
fn consume(bed: &Bed, topic: &str, count: usize) -> Vec<[String; 4]> {
    let print = ["partition", "headers", "key"].map(|it| format!("print.{it}=true"));
    let count = count.to_string();
    let mut arguments = vec!["--topic", topic, "--from-beginning", "--max-messages", &count, "--timeout-ms", "15000"];
    arguments.extend(print.iter().flat_map(|it| ["--formatter-property", it.as_str()]));
    let output = bed.kafka("kafka-console-consumer", &arguments);
    let records = output.lines().filter(|line| line.starts_with("Partition:"));
    let parts = |line: &str| line.split('\t').map(ToOwned::to_owned).collect::<Vec<_>>().try_into().unwrap();
    records.map(parts).collect()
}

/// The number of records in a topic.
fn count(bed: &Bed, topic: &str) -> u64 {
    let arguments = ["--bootstrap-server", bed.env("KAFKA_BOOTSTRAP"), "--topic", topic];
    let config = ["--command-config", bed.env("KAFKA_ADMIN_CONFIG")];
    let (ok, output) = run(&bed.kafka_tool("kafka-get-offsets"), &[&arguments[..], &config].concat(), "");
    assert!(ok, "{output}");
    output.lines().filter_map(|line| line.rsplit_once(':')?.1.parse::<u64>().ok()).sum()
}

fn reasons(bed: &Bed, namespace: &str, name: &str) -> Vec<String> {
    let lines = audit(bed, &format!("{namespace}/{name}"));
    lines.iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect()
}

/// Whether the edge has logged this message about this topic.
fn logged(bed: &Bed, message: &str, topic: &str) -> bool {
    edge_log(bed).lines().any(|line| line.contains(message) && line.contains(topic))
}

fn edge_log(bed: &Bed) -> String {
    std::fs::read_to_string(format!("{}/logs/edge.log", bed.env("BED_DIR"))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_becomes_one_record_in_the_partition_of_its_key() {
    let bed = Bed::open().await;
    let (namespace, topic) = namespace(&bed, "records", "5", "retention.ms=-1").await;
    grant(&bed, &namespace, &topic).await;
    let key = serve(&bed, &namespace, "payments", &topic).await;
    let sender = Sender::new(&bed, bed.env("EDGE_URL"));
    let (path, body) = (format!("/{namespace}/payments"), r#"{"type": "paid",  "amount": "7 é"}"#);
    let ids: Vec<String> = (0..10).map(|number| format!("msg_{number}")).collect();
    for id in &ids {
        assert_eq!(sender.send(&path, &key, id, body).await.unwrap(), 200, "{id}");
        assert_eq!(sender.send(&path, &key, id, body).await.unwrap(), 409, "{id}, a replay");
    }
    assert_eq!(count(&bed, &topic), 10, "each delivery once");
    // Kafka's own client writes records with the same keys to the same topic.
    let theirs: String = ids.iter().map(|id| format!("{id}:theirs\n")).collect();
    let server = ["--bootstrap-server", bed.env("KAFKA_BOOTSTRAP"), "--topic", &topic];
    let config = ["--command-config", bed.env("KAFKA_ADMIN_CONFIG")];
    let keys = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=:"];
    let (ok, output) = run(&bed.kafka_tool("kafka-console-producer"), &[&server[..], &config, &keys].concat(), &theirs);
    assert!(ok, "{output}");

    let records = consume(&bed, &topic, 20);
    let (ours, theirs): (Vec<_>, Vec<_>) = records.iter().partition(|[_, _, _, value]| value != "theirs");
    assert_eq!((ours.len(), theirs.len()), (10, 10));
    for [partition, headers, id, value] in ours {
        assert_eq!(value, body);
        assert!(theirs.iter().any(|record| (&record[0], &record[2]) == (partition, id)), "{partition} {id}");
        for header in [format!("idempotency-key:{id}"), format!("credence-endpoint:{namespace}/payments")] {
            assert!(headers.contains(&header), "{headers}");
        }
        assert!(headers.contains("credence-assertion:ey") && headers.contains("webhook-timestamp:1"), "{headers}");
        assert!(!headers.contains("webhook-signature"), "{headers}");
    }
    assert!(records.iter().any(|record| record[0] != records[0][0]), "the records are in more than one partition");
    let lines = audit(&bed, &format!("{namespace}/payments"));
    assert_eq!(lines[0]["target"], format!("{topic}.kafka"));
    assert!(lines[0].get("targetStatus").is_none(), "{}", lines[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_and_a_missing_topic_are_distinguished() {
    let bed = Bed::open().await;
    let (namespace, topic) = namespace(&bed, "granted", "1", "retention.ms=-1").await;
    let sender = Sender::new(&bed, bed.env("EDGE_URL"));
    let key = serve(&bed, &namespace, "payments", &topic).await;
    let path = format!("/{namespace}/payments");
    assert_eq!(
        sender.send(&path, &key, "msg_1", "hidden-in-the-record").await.unwrap(),
        502,
        "the account has no right to write"
    );
    assert_eq!(reasons(&bed, &namespace, "payments"), ["TargetForbidden"]);
    assert!(logged(&bed, "not authorized to write to the topic", &topic), "the log does not name the topic");
    grant(&bed, &namespace, &topic).await;
    // A refusal is cached for a short time.
    until("the same delivery to be accepted", || async {
        let status = sender.send(&path, &key, "msg_1", "hidden-in-the-record").await.unwrap();
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;

    let absent = format!("{topic}.absent");
    let prefix = policy(&namespace, "more", "", json!([{"identity": {"name": "hooks"}, "actions": ["Publish"]}]));
    let prefix = with(prefix, "/spec/topic", json!({"prefix": format!("{topic}.")}));
    bed.apply(prefix).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "more").await;
    let key = serve(&bed, &namespace, "absent", &absent).await;
    let path = format!("/{namespace}/absent");
    assert_eq!(sender.send(&path, &key, "msg_1", "{}").await.unwrap(), 502);
    assert_eq!(reasons(&bed, &namespace, "absent"), ["TargetRefused"]);
    assert!(logged(&bed, "topic does not exist", &absent), "the log does not name the topic");
    assert!(!edge_log(&bed).contains("hidden-in-the-record"), "the log contains no bodies");
    let topics = bed.kafka("kafka-topics", &["--list"]);
    assert!(!topics.contains(&absent), "the edge creates no topics");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_record_does_not_fail_other_records() {
    let bed = Bed::open().await;
    let (namespace, topic) = namespace(&bed, "sizes", "1", "max.message.bytes=20000").await;
    grant(&bed, &namespace, &topic).await;
    let key = serve(&bed, &namespace, "payments", &topic).await;
    let sender = Sender::new(&bed, bed.env("EDGE_URL"));
    let mut senders = JoinSet::new();
    for number in 0..60 {
        let (sender, key, path) = (sender.clone(), key.clone(), format!("/{namespace}/payments"));
        senders.spawn(async move {
            let body = "x".repeat(if number % 20 == 7 { 30_000 } else { 3000 });
            let status = sender.send(&path, &key, &format!("msg_{number}"), &body).await.unwrap();
            (body.len(), status.as_u16())
        });
    }
    for (length, status) in senders.join_all().await {
        assert_eq!(status, if length > 20_000 { 413 } else { 200 });
    }
    assert_eq!(count(&bed, &topic), 57);
    assert_eq!(reasons(&bed, &namespace, "payments").iter().filter(|reason| *reason == "BodyTooLarge").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_has_one_type_and_a_topic_has_a_name() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("topics").await;
    for topic in [".", "..", "a b", "a/b", ""] {
        let refused = bed.apply(endpoint(&namespace, "refused", topic)).await.unwrap_err();
        assert!(refused.contains("topic"), "{topic}: {refused}");
    }
    let mut both = endpoint(&namespace, "both", "orders");
    both["spec"]["target"]["service"] = json!({"name": "x", "port": 80});
    assert!(bed.apply(both).await.unwrap_err().contains("exactly one of service, object and kafka"));
}

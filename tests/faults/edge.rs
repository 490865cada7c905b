//! Faults of the edge: competing replicas, a Redis outage, key rotation under load, and outages of its broker.

use std::collections::{BTreeSet, HashMap};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::bed::{Bed, OPERATOR, identity, manifest, policy, run, until, with};
use crate::hooks::{Sender, Target, endpoint, signed, signing_key, tls};
use crate::operator::Operator;

/// Another replica of the edge: the bed's program and arguments, with another identity.
struct Replica {
    child: Child,
    url: String,
    name: String,
}

impl Replica {
    async fn start(bed: &Bed, name: &str) -> Self {
        let read = |file: &str| {
            let text = std::fs::read_to_string(format!("/proc/{}/{file}", bed.env("EDGE_PID"))).unwrap();
            text.split_terminator('\0').map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, metrics) = (free(), free());
        let logs = format!("{}/logs", bed.env("BED_DIR"));
        let variables = read("environ");
        let child = Command::new(format!("{}/bin/credence", bed.env("BED_DIR")))
            .args(read("cmdline").split_off(1))
            .args(["--identity", name, "--listen", &format!("127.0.0.1:{port}")])
            .args(["--listen-metrics", &format!("127.0.0.1:{metrics}"), "--audit-log", &format!("{logs}/{name}.log")])
            .env_clear()
            .envs(variables.iter().filter_map(|entry| entry.split_once('=')))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let replica = Self { child, url: format!("https://localhost:{port}"), name: name.to_owned() };
        let ready = format!("http://127.0.0.1:{metrics}/readyz");
        until("the replica to be ready", || async {
            let (ok, answer) = run("curl", &["--silent", "--fail", &ready], "");
            if ok { Ok(()) } else { Err(answer) }
        })
        .await;
        replica
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// An endpoint `payments` that is served, with its delivery history in Redis.
pub struct Served {
    pub namespace: String,
    pub target: Target,
    pub path: String,
    pub key: String,
    /// Sends to the edge of the bed.
    pub sender: Sender,
}

impl Served {
    pub async fn new(bed: &Bed, test: &str) -> Self {
        let (namespace, target) = (bed.namespace(test).await, Target::start().await);
        let mut object = endpoint(&namespace, "payments", &target, json!({"standardWebhooks": {}}));
        object["spec"]["replay"] = json!({"store": "Redis"});
        object["spec"]["limits"] = json!({"perSecond": 100_000});
        bed.apply(object).await.unwrap();
        bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
        let key = signing_key(bed, &namespace, "payments").await;
        let (path, sender) = (format!("/{namespace}/payments"), Sender::new(bed, bed.env("EDGE_URL")));
        Self { namespace, target, path, key, sender }
    }
}

/// How many times a target received each delivery.
pub fn deliveries(target: &Target) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for (headers, _) in target.received.lock().unwrap().iter() {
        *times.entry(headers["idempotency-key"].to_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_accept_the_same_delivery_once() {
    // Another test stops Redis.
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let other = Replica::start(&bed, "race-edge").await;
    let Served { namespace, target, path, key, sender: one } = Served::new(&bed, "race").await;
    let found = bed.get("WebhookEndpoint", Some(&namespace), "payments").await.unwrap();
    assert!(found.data["status"]["replicas"].get(&other.name).is_some(), "{}", found.data["status"]);
    let two = Sender::new(&bed, &other.url);
    for number in 0..1000 {
        let id = format!("msg_{number}");
        let answers = tokio::join!(one.send(&path, &key, &id, "{}"), two.send(&path, &key, &id, "{}"));
        let mut answers = [answers.0.unwrap().as_u16(), answers.1.unwrap().as_u16()];
        answers.sort_unstable();
        assert!([[200, 409], [200, 503]].contains(&answers), "{id}: {answers:?}");
        assert_eq!(two.send(&path, &key, &id, "{}").await.unwrap(), StatusCode::CONFLICT, "{id} is delivered");
    }
    let times = deliveries(&target);
    assert!(times.len() == 1000 && times.values().all(|times| *times == 1), "each delivery is accepted once");

    bed.apply(endpoint(&namespace, "alone", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    let ready = bed.ready("WebhookEndpoint", Some(&namespace), "alone").await;
    let protection = ready.data["status"]["protection"].as_str().unwrap();
    assert!(protection.contains("set replay.store to Redis"), "{protection}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_outage_loses_and_repeats_no_delivery() {
    // Another test stops Redis.
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let Served { target, path, key, sender, .. } = Served::new(&bed, "redis").await;
    let mut senders = JoinSet::new();
    let began = Instant::now();
    for worker in 0..4 {
        let (sender, path, key) = (sender.clone(), path.clone(), key.clone());
        senders.spawn(async move {
            let (mut sent, mut refused) = (0, 0);
            while began.elapsed() < Duration::from_secs(12) {
                let id = format!("msg_{worker}_{sent}");
                // Every sender retries until its delivery is accepted.
                while sender.send(&path, &key, &id, "{}").await.unwrap() == StatusCode::SERVICE_UNAVAILABLE {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                sent += 1;
            }
            (sent, refused)
        });
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    bed.part("stop", "redis");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stopped = deliveries(&target).len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(deliveries(&target).len(), stopped, "nothing is accepted while replays cannot be detected");
    bed.part("start", "redis");
    let (mut sent, mut refused) = (0, 0);
    while let Some(ended) = senders.join_next().await {
        let (own, refusals) = ended.unwrap();
        sent += own;
        refused += refusals;
    }
    let times = deliveries(&target);
    assert!(refused > 0, "deliveries were refused during the outage");
    assert_eq!(times.len(), sent, "no delivery is lost");
    assert!(times.values().all(|times| *times == 1), "no delivery reached the target twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_rotation_under_load_refuses_no_valid_delivery() {
    // Another test stops Redis.
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let Served { namespace, target, path, key: first, sender } = Served::new(&bed, "load").await;
    let (announce, known) = tokio::sync::watch::channel(first.clone());
    let mut senders = JoinSet::new();
    for worker in 0..4_u64 {
        let (sender, path, mut known) = (sender.clone(), path.clone(), known.clone());
        senders.spawn(async move {
            let mut key = known.borrow_and_update().clone();
            let mut sent = 0;
            loop {
                if known.has_changed().unwrap() {
                    let next = known.borrow_and_update().clone();
                    if next.is_empty() {
                        return sent;
                    }
                    // Each sender switches keys at a different moment within the overlap.
                    let until = Instant::now() + Duration::from_millis(500 + 1000 * worker + fastrand::u64(0..1000));
                    while Instant::now() < until {
                        sent = send(&sender, &path, &key, worker, sent).await;
                    }
                    key = next;
                }
                sent = send(&sender, &path, &key, worker, sent).await;
            }
        });
    }
    let mut before = first;
    for round in 0..3 {
        let order = json!({
            "targets": [{"kind": "WebhookEndpoint"}],
            "credentials": {"overlap": "8s"},
            "issuedBefore": (Timestamp::now() + SignedDuration::from_secs(1)).to_string(),
        });
        bed.apply(manifest("RotationPolicy", Some(&namespace), "rotate", order)).await.unwrap();
        let next = until("a new key", || async {
            let key = signing_key(&bed, &namespace, "payments").await;
            if key == before { Err(format!("round {round}")) } else { Ok(key) }
        })
        .await;
        announce.send(next.clone()).unwrap();
        before = next;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    announce.send(String::new()).unwrap();
    let sent: u64 = senders.join_all().await.into_iter().sum();
    let times = deliveries(&target);
    assert_eq!(u64::try_from(times.len()).unwrap(), sent, "no delivery is lost");
    let found = bed.get("WebhookEndpoint", Some(&namespace), "payments").await.unwrap();
    assert_eq!(found.metadata.generation, Some(1), "rotating keys does not change the spec");
    assert_eq!(found.data["status"]["keys"].as_array().map(Vec::len), Some(1), "{}", found.data["status"]["keys"]);
    let state: &Value = &found.data["status"]["keys"][0]["state"];
    assert_eq!(state, "Active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_withdrawn_after_an_unobserved_deletion() {
    let bed = Bed::open().await;
    let mut operator = Operator::start(&bed, &[], &[]).await;
    let Served { namespace, path, sender, target: _target, .. } = Served::new(&bed, "unguarded").await;
    operator.kill();
    let unguarded = json!({"metadata": {"finalizers": null}});
    let api = bed.api("WebhookEndpoint", Some(&namespace));
    api.patch("payments", &PatchParams::default(), &Patch::Merge(&unguarded)).await.unwrap();
    bed.delete("WebhookEndpoint", Some(&namespace), "payments").await;
    let wrong = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let answer = sender.send(&path, wrong, "msg_1", "{}").await.unwrap();
    assert_eq!(answer, StatusCode::FORBIDDEN, "the edge continues with its stored routes");
    operator.spawn();
    until("the route to be withdrawn", || async {
        let answer = sender.send(&path, wrong, "msg_1", "{}").await.unwrap();
        if answer == StatusCode::NOT_FOUND { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

async fn send(sender: &Sender, path: &str, key: &str, worker: u64, sent: u64) -> u64 {
    let id = format!("msg_{worker}_{sent}");
    assert_eq!(sender.send(path, key, &id, "{}").await.unwrap(), StatusCode::OK, "{id}");
    sent + 1
}

/// The serial number of the certificate that the edge presents, read with OpenSSL.
fn presented_serial(bed: &Bed) -> String {
    let server = bed.env("EDGE_URL").strip_prefix("https://").unwrap();
    let script = format!("openssl s_client -connect {server} </dev/null 2>/dev/null | openssl x509 -noout -serial");
    let (ok, serial) = run("sh", &["-c", &script], "");
    assert!(ok, "{serial}");
    serial
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_the_edge_certificate_breaks_no_connection() {
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let Served { target, path, key, .. } = Served::new(&bed, "renewed").await;
    // One connection that stays open during the renewal.
    let port = bed.env("EDGE_URL").rsplit_once(':').unwrap().1.parse().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(tls(&bed))).connect(name, stream).await.unwrap();
    let (mut kept, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = kept.send_request(signed(&path, &key, "msg_first", "{}")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    kept.ready().await.unwrap();
    let before = presented_serial(&bed);
    let order = json!({
        "targets": [{"kind": "ServiceIdentity", "name": "edge"}],
        "issuedBefore": (Timestamp::now() + SignedDuration::from_secs(1)).to_string(),
    });
    bed.apply(manifest("RotationPolicy", Some("credence-edge"), "renew-edge", order)).await.unwrap();
    let (began, mut sent) = (Instant::now(), 0);
    while presented_serial(&bed) == before {
        assert!(began.elapsed() < Duration::from_secs(30), "the edge still presents {before}");
        sent = send(&Sender::new(&bed, bed.env("EDGE_URL")), &path, &key, 1, sent).await;
    }
    let answer = kept.send_request(signed(&path, &key, "msg_last", "{}")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "on the connection from before the renewal");
    assert!(sent > 0 && deliveries(&target).len() as u64 == sent + 2, "every delivery reached the target");
    bed.delete("RotationPolicy", Some("credence-edge"), "renew-edge").await;
}

/// Renews the account of the identity, and waits until the edge has the new credential.
async fn renew_account(bed: &Bed, namespace: &str) {
    let ready = bed.ready("WebhookEndpoint", Some(namespace), "payments").await;
    let route = format!("route-{}", ready.metadata.uid.unwrap());
    let credential = || async {
        let account = bed.secret(namespace, "hooks.kafka").await.unwrap().data.unwrap();
        let route = bed.secret("credence-edge", &route).await.unwrap().data.unwrap();
        let route: Value = serde_json::from_slice(&route["route.json"].0).unwrap();
        (
            String::from_utf8(account["tls.crt"].0.clone()).unwrap(),
            route["account"]["chain"].as_str().unwrap().to_owned(),
        )
    };
    let (before, given) = credential().await;
    assert_eq!(before, given);
    let order = json!({
        "targets": [{"kind": "ServiceIdentity"}],
        "issuedBefore": (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)).to_string(),
    });
    bed.apply(manifest("RotationPolicy", Some(namespace), "rotate", order)).await.unwrap();
    until("the edge to have the renewed credential", || async {
        let (now, given) = credential().await;
        if now != before && now == given { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_outage_and_a_route_change_lose_no_record() {
    // This test stops Kafka.
    let _alone = OPERATOR.lock().await;
    let bed = Bed::open().await;
    let namespace = bed.namespace("records").await;
    let topic = format!("sandbox.{namespace}");
    bed.kafka("kafka-topics", &["--create", "--topic", &topic, "--partitions", "3"]);
    bed.apply(identity(&namespace, "hooks", &["kafka"])).await.unwrap();
    let grants = json!([{"identity": {"name": "hooks"}, "actions": ["Publish"]}]);
    bed.apply(policy(&namespace, "hooks", &topic, grants)).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "hooks").await;
    bed.ready("TopicPolicy", Some(&namespace), "hooks").await;
    let object = json!({
        "path": format!("/{namespace}/payments"),
        "verification": {"standardWebhooks": {}},
        "target": {
            "kafka": {
                "broker": "kafka", "serviceIdentity": "hooks", "topic": topic, "timeout": "1s", "attempts": 2,
            },
        },
        "limits": {"perSecond": 10_000},
    });
    let object = manifest("WebhookEndpoint", Some(&namespace), "payments", object);
    bed.apply(object.clone()).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
    let (path, key) = (format!("/{namespace}/payments"), signing_key(&bed, &namespace, "payments").await);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut senders = JoinSet::new();
    for worker in 0..8 {
        let (sender, path, key) = (Sender::new(&bed, bed.env("EDGE_URL")), path.clone(), key.clone());
        let stopped = stopped.clone();
        senders.spawn(async move {
            let (mut sent, mut failed) = (BTreeSet::new(), BTreeSet::new());
            while !*stopped.borrow() {
                let id = format!("msg_{worker}_{}", sent.len());
                // Every sender retries until its delivery is accepted.
                loop {
                    let status = sender.send(&path, &key, &id, "{}").await.unwrap().as_u16();
                    if status == 200 {
                        break;
                    }
                    failed.insert(status);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                sent.insert(id);
            }
            (sent, failed)
        });
    }
    for round in 1..=5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bed.apply(with(object.clone(), "/spec/limits", json!({"perSecond": 10_000 + round}))).await.unwrap();
    }
    bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
    renew_account(&bed, &namespace).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let log = std::fs::read_to_string(bed.env("EDGE_AUDIT_LOG")).unwrap();
    let failed = |line: &&str| line.contains(&namespace) && line.contains("Failed");
    assert_eq!(log.lines().find(failed), None, "a changed route or credential fails no delivery");
    let kafka = std::fs::read_to_string(format!("{}/pids/kafka", bed.env("BED_DIR"))).unwrap();
    let signal = |signal| {
        let (ok, output) = run("kill", &[signal, kafka.split_whitespace().next().unwrap()], "");
        assert!(ok, "{output}");
    };
    signal("-STOP");
    tokio::time::sleep(Duration::from_secs(4)).await;
    signal("-CONT");
    tokio::time::sleep(Duration::from_secs(2)).await;
    bed.part("stop", "kafka");
    tokio::time::sleep(Duration::from_secs(3)).await;
    bed.part("start", "kafka");
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.send(true).unwrap();
    let (mut sent, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for (own, failures) in senders.join_all().await {
        sent.extend(own);
        failed.extend(failures);
    }
    assert_eq!(failed, BTreeSet::from([502, 504]), "only the outages failed deliveries");
    let arguments = ["--topic", &topic, "--from-beginning", "--timeout-ms", "10000"];
    let print = ["--formatter-property", "print.key=true", "--formatter-property", "print.value=false"];
    let read = bed.kafka("kafka-console-consumer", &[&arguments[..], &print].concat());
    let keys: Vec<String> = read.lines().filter(|line| line.starts_with("msg_")).map(ToOwned::to_owned).collect();
    let times = keys.len();
    let keys: BTreeSet<String> = keys.into_iter().collect();
    assert_eq!(keys.symmetric_difference(&sent).collect::<Vec<_>>(), Vec::<&String>::new(), "no delivery is lost");
    // Deliveries in progress may be written twice, once for each attempt without a response.
    assert!(times - keys.len() <= 100, "{times} records of {} deliveries", keys.len());
}

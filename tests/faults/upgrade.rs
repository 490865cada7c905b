//! An upgrade: what stands under the CRDs and the statuses of 0.1.0 is taken up by this version as it is, and so is what the
//! operator and the edge of 0.2.0 really wrote.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::api::{ListParams, Patch, PatchParams};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::bed::{Bed, identity, policy, run, self_signed, unique, until};
use crate::hooks::{Target, endpoint, signing_key};
use crate::judges;
use crate::operator::Operator;
use crate::proxy::Proxy;
use crate::restored::{Restored, Seen, Sender};

fn apply_crds(bed: &Bed, folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let kubeconfig = ["--kubeconfig", bed.env("KUBECONFIG")];
    let apply = ["apply", "--server-side", "--force-conflicts", "--filename", folder.to_str().unwrap()];
    let (ok, output) = run(&kubectl, &[&kubeconfig[..], &apply].concat(), "");
    assert!(ok, "{output}");
    let (ok, output) = run(
        &kubectl,
        &[&kubeconfig[..], &["wait", "--for", "condition=Established", "--filename", folder.to_str().unwrap()]]
            .concat(),
        "",
    );
    assert!(ok, "{output}");
}

/// Names and versions of everything that holds keys, bundles or the record of what was granted.
async fn versions(bed: &Bed, namespace: &str) -> Vec<(String, Option<String>)> {
    let mut versions = Vec::new();
    for (kind, namespace) in [("Secret", namespace), ("Secret", "credence-system"), ("ConfigMap", "credence-system")] {
        let listed = bed.api(kind, Some(namespace)).list(&ListParams::default()).await.unwrap();
        versions.extend(listed.items.into_iter().map(|it| (it.metadata.name.unwrap(), it.metadata.resource_version)));
    }
    versions
}

#[tokio::test]
async fn objects_of_the_version_before_are_taken_up_as_they_are() {
    let bed = Bed::open().await;
    let mut operator = Operator::start(&bed, &[], &[]).await;
    let (namespace, domain) = (bed.namespace("upgrade").await, unique("upgrade"));
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    bed.apply(policy(&namespace, "orders", "sandbox.upgrade", grants)).await.unwrap();
    bed.ready("TrustDomain", None, &domain).await;
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;

    operator.kill();
    apply_crds(&bed, "tests/faults/v0.1.0");
    let objects = [
        ("TrustDomain", None, domain.as_str()),
        ("ServiceIdentity", Some(namespace.as_str()), "orders"),
        ("TopicPolicy", Some(&namespace), "orders"),
        ("BrokerConnection", None, "kafka"),
    ];
    for (kind, namespace, name) in objects {
        // The former CRDs prune what the former version did not know, once a status is written under them.
        until(&format!("the status of {kind} as 0.1.0 wrote it"), || async {
            let object = bed.get(kind, namespace, name).await.unwrap();
            let mut conditions = object.data["status"]["conditions"].clone();
            conditions.as_array_mut().unwrap().retain(|condition| condition["type"] != "Authorized");
            let patch = json!({"status": {"conditions": conditions}});
            let api = bed.api(kind, namespace);
            let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            let status = &written.data["status"];
            if status["observedGeneration"] == Value::Null { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    let before = versions(&bed, &namespace).await;
    let principal = format!("User:CN=orders,OU={namespace},O=demo.credence.example");
    let acls = bed.acls(&principal);

    apply_crds(&bed, "crds");
    operator.spawn();
    operator.says("working").await;
    for (kind, namespace, name) in objects {
        let object = bed.ready(kind, namespace, name).await;
        until(&format!("{kind} {name} to be taken up"), || async {
            let object = bed.get(kind, namespace, name).await.unwrap();
            let observed = object.data["status"]["observedGeneration"].as_i64();
            if observed == object.metadata.generation { Ok(()) } else { Err(object.data["status"].to_string()) }
        })
        .await;
        assert_eq!(object.data["spec"], bed.get(kind, namespace, name).await.unwrap().data["spec"]);
    }
    assert_eq!(versions(&bed, &namespace).await, before, "no key and no bundle was written again");
    assert_eq!(bed.acls(&principal), acls, "no right was touched");
    bed.delete("TrustDomain", None, &domain).await;
}

#[tokio::test]
async fn a_consumer_group_that_new_policies_may_not_name_goes_on() {
    let bed = Bed::open().await;
    let mut operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("odd").await;
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Consume"], "consumerGroup": "two words"}]);
    operator.kill();
    apply_crds(&bed, "tests/faults/v0.1.0");
    bed.apply(policy(&namespace, "odd", "sandbox.odd", grants.clone())).await.unwrap();
    apply_crds(&bed, "crds");
    operator.spawn();
    operator.says("working").await;
    bed.ready("TopicPolicy", Some(&namespace), "odd").await;
    let principal = format!("User:CN=orders,OU={namespace},O=demo.credence.example");
    assert!(bed.acls(&principal).contains("name=two words"));
    let refused = bed.apply(policy(&namespace, "new", "sandbox.odd", grants)).await.unwrap_err();
    assert!(refused.contains("consumerGroup"), "{refused}");
    bed.delete("TopicPolicy", Some(&namespace), "odd").await;
    gone(&bed, &namespace, "odd").await;
    assert_eq!(bed.acls(&principal).trim(), "");
}

/// Takes the rules out of a CRD, as if they were not made yet.
fn without_rules(bed: &Bed, name: &str) {
    fn strip(schema: &mut Value) {
        match schema {
            Value::Object(fields) => {
                fields.remove("x-kubernetes-validations");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let kubeconfig = ["--kubeconfig", bed.env("KUBECONFIG")];
    let (ok, found) = run(&kubectl, &[&kubeconfig[..], &["get", "crd", name, "--output", "json"]].concat(), "");
    assert!(ok, "{found}");
    let mut found: Value = serde_json::from_str(&found).unwrap();
    strip(&mut found["spec"]);
    let (ok, output) = run(&kubectl, &[&kubeconfig[..], &["replace", "--filename", "-"]].concat(), &found.to_string());
    assert!(ok, "{output}");
}

#[tokio::test]
async fn webhooks_from_before_tightened_rules_go_on_and_say_so() {
    let bed = Bed::open().await;
    let operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("before").await;
    let target = Target::start().await;
    let object = |name: &str, verification: Value, more: Value| {
        let mut object = endpoint(&namespace, name, &target, verification);
        object["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let pin = |name: &str| json!({"source": {"clientCertificate": {"dnsNames": [name]}}});
    let issuer = json!({"issuer": "https://a.example", "audience": "a"});
    let keys = json!({"keys": {"external": {"secretRef": {"name": "issuer"}}}});
    let signatures = json!({"httpMessageSignatures": {"algorithm": "HmacSha256"}});
    let objects = |prefix: &str| {
        [
            (object(&format!("{prefix}-named"), json!({"github": {}}), pin("a.example")), "add caBundle"),
            (object(&format!("{prefix}-token"), json!({"jwt": issuer}), keys.clone()), "add subject"),
            (object(&format!("{prefix}-signed"), signatures.clone(), json!({})), "add externalURL"),
        ]
    };
    without_rules(&bed, "webhookendpoints.credence.dev");
    let old = objects("old");
    for (object, _) in &old {
        until("the CRD without rules to be in use", || async { bed.apply(object.clone()).await.map(drop) }).await;
    }
    apply_crds(&bed, "crds");
    until("the rules to be in use", || async {
        let (new, _) = &objects("new")[0];
        let dry = bed.apply(new.clone()).await;
        if dry.is_ok() {
            bed.delete("WebhookEndpoint", Some(&namespace), "new-named").await;
            return Err("a new object is accepted".to_owned());
        }
        Ok(())
    })
    .await;
    for (object, _) in objects("new") {
        bed.apply(object).await.unwrap_err();
    }
    for (object, remark) in old {
        let name = object["metadata"]["name"].as_str().unwrap();
        // It can be changed otherwise.
        let limits = json!({"spec": {"limits": {"perSecond": 7}}});
        let api = bed.api("WebhookEndpoint", Some(&namespace));
        api.patch(name, &PatchParams::default(), &Patch::Merge(&limits)).await.unwrap();
        let told = bed.condition("WebhookEndpoint", Some(&namespace), name, "Accepted", ("True", "Valid")).await;
        let conditions = told.data["status"]["conditions"].to_string();
        assert!(conditions.contains(remark) && conditions.contains("until 0.4.0"), "{conditions}");
    }
    let changed = json!({"spec": pin("b.example")});
    let api = bed.api("WebhookEndpoint", Some(&namespace));
    api.patch("old-named", &PatchParams::default(), &Patch::Merge(&changed)).await.unwrap_err();
    drop(operator);
}

/// Makes the cluster look as the version before left it: without any record of what was applied but the statuses.
async fn forget_records(bed: &Bed) {
    let maps = bed.api("ConfigMap", Some("credence-system"));
    for component in ["records", "broker-records", "name-records"] {
        let selected = ListParams::default().labels(&format!("credence.dev/component={component}"));
        for map in maps.list(&selected).await.unwrap() {
            bed.delete("ConfigMap", Some("credence-system"), &map.metadata.name.unwrap()).await;
        }
    }
}

#[tokio::test]
async fn tightened_rules_spare_what_was_in_force() {
    let bed = Bed::open().await;
    let mut operator = Operator::start(&bed, &[], &[]).await;
    let (owner, other) = (bed.namespace("owner").await, bed.namespace("other").await);
    let accept = |from: Value| {
        let mut service = identity(&other, "app", &["kafka"]);
        service["spec"]["brokers"][0]["acceptFrom"] = from;
        service
    };
    bed.apply(accept(json!([owner]))).await.unwrap();
    bed.apply(identity(&owner, "app", &["kafka"])).await.unwrap();
    let group = unique("shared");
    let consume = |namespace: &str, group: &str| {
        let identity = json!({"name": "app", "namespace": namespace});
        json!([{"identity": identity, "actions": ["Consume"], "consumerGroup": group}])
    };
    // A grant to another namespace, a group that two namespaces share, and a right that was kept by only observing.
    bed.apply(policy(&owner, "granted", "sandbox.granted", consume(&other, &group))).await.unwrap();
    bed.ready("TopicPolicy", Some(&owner), "granted").await;
    bed.apply(policy(&owner, "shared", "sandbox.shared", consume(&owner, &group))).await.unwrap();
    let mut kept =
        policy(&owner, "kept", "payments.kept", json!([{"identity": {"name": "app"}, "actions": ["Publish"]}]));
    kept["spec"]["mode"] = json!("Observe");
    bed.apply(kept).await.unwrap();
    operator.kill();
    let principal = |namespace: &str| format!("User:CN=app,OU={namespace},O=demo.credence.example");
    let right = |operation: &str, resource: &str, name: &str| {
        let name = json!({"principal": principal(&owner), "operation": operation, "resource": resource,
            "pattern": "Literal", "name": name});
        name
    };
    let shared = json!([right("Read", "Topic", "sandbox.shared"), right("Read", "Group", &group)]);
    for (name, applied) in [("shared", shared), ("kept", json!([right("Write", "Topic", "payments.kept")]))] {
        let status = json!({"status": {"applied": applied}});
        let policies = bed.api("TopicPolicy", Some(&owner));
        policies.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
    let add = |resource: [&str; 2], operation: &str| {
        let by = ["--operation", operation, "--allow-principal", &principal(&owner)];
        bed.kafka("kafka-acls", &[&["--add"][..], &resource, &by].concat());
    };
    add(["--topic", "sandbox.shared"], "Read");
    add(["--group", &group], "Read");
    add(["--topic", "payments.kept"], "Write");
    bed.apply(accept(json!([]))).await.unwrap();
    forget_records(&bed).await;
    let rights = || [&owner, &other].map(|namespace| bed.acls(&principal(namespace)));
    let before = rights();

    for _ in 0..2 {
        operator.spawn();
        operator.says("working").await;
        until("the policy to be told what it needs", || async {
            let told = bed.ready("TopicPolicy", Some(&owner), "granted").await.data["status"].to_string();
            if told.contains(&format!("add acceptFrom: [{owner}]")) { Ok(()) } else { Err(told) }
        })
        .await;
        bed.ready("TopicPolicy", Some(&owner), "shared").await;
        bed.condition("TopicPolicy", Some(&owner), "kept", "Accepted", ("False", "TopicNotAllowed")).await;
        assert_eq!(rights(), before, "nobody lost or got a right");
        operator.kill();
    }
    operator.spawn();
    operator.says("working").await;
    bed.apply(policy(&owner, "new", "sandbox.new", consume(&other, &unique("new")))).await.unwrap();
    bed.condition("TopicPolicy", Some(&owner), "new", "Ready", ("False", "GrantNotAccepted")).await;
    let unmanaged = bed.get("BrokerConnection", None, "kafka").await.unwrap().data["status"]["unmanaged"].clone();
    assert!(unmanaged["count"].as_u64().unwrap() > 0, "{unmanaged}");
    for name in ["granted", "shared", "kept"] {
        bed.delete("TopicPolicy", Some(&owner), name).await;
        gone(&bed, &owner, name).await;
    }
    let [left, revoked] = rights();
    assert_eq!(revoked.trim(), "", "what was taken over is revoked with its policy");
    assert!(left.contains("payments.kept") && !left.contains("sandbox.shared") && !left.contains(&group), "{left}");
    let by = ["--operation", "Write", "--allow-principal", &principal(&owner)];
    bed.kafka("kafka-acls", &[&["--remove", "--force", "--topic", "payments.kept"][..], &by].concat());
}

/// Deliveries that go on while keys turn.
struct Stream {
    /// What is signed with, each in its turn.
    keys: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    sending: JoinHandle<Vec<(usize, u16)>>,
}

impl Stream {
    fn start(sender: Sender, path: &'static str, key: String) -> Self {
        let (keys, over) = (Arc::new(Mutex::new(vec![key])), Arc::new(AtomicBool::new(false)));
        let (shared, until) = (keys.clone(), over.clone());
        let sending = tokio::task::spawn_blocking(move || {
            let mut answers = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let keys = shared.lock().unwrap().clone();
                for (number, key) in keys.iter().enumerate() {
                    let headers = sender.sign(key, &format!("stream_{}", answers.len()), "{}");
                    answers.push((number, sender.send(path, &[], &headers, "{}")));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            answers
        });
        Self { keys, over, sending }
    }

    /// Signs with one more key from now on.
    fn add(&self, key: String) {
        self.keys.lock().unwrap().push(key);
    }

    /// With which of the keys it has signed, and what the answers were.
    async fn end(mut self) -> Vec<(usize, u16)> {
        self.over.store(true, Ordering::Relaxed);
        (&mut self.sending).await.unwrap()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// How often the operator may write what begins like this while it takes over, beside the route of the endpoint `turning`.
/// Everything else has to stay as it is.
const ALLOWED: [(&str, usize); 20] = [
    // The turning of its keys goes on: the former key gets an end, senders are told to sign with the new one, the edge serves
    // what has become of it and says when both last verified a delivery.
    ("Secret shop/turning-webhook-keys", 1),
    ("WebhookEndpoint shop/turning", 8),
    ("RotationPolicy shop/turning", 2),
    // What was applied is recorded in the operator's namespace from now on. Until policies have been heard, all that the broker
    // has is unmanaged.
    ("ConfigMap credence-system/credence-records", 1),
    ("ConfigMap credence-system/broker-records.", 1),
    ("ConfigMap credence-system/name-records.", 1),
    ("BrokerConnection /kafka", 2),
    // Keys and bundles of a TrustDomain hang on no owner reference any more.
    ("Secret credence-system/", 1),
    ("ConfigMap ", 1),
    // The addresses of a broker come from its BrokerConnection, not from a Secret that tenants can write: routes to topics are
    // written once, and the edge takes them up.
    ("Secret credence-edge/route-", 1),
    ("WebhookEndpoint shop/record", 2),
    ("WebhookDestination shop/acme", 2),
    ("events shop/record", 1),
    ("events shop/acme", 1),
    // A webhook without a valid key has a route, so that the edge knows whose deliveries it refuses.
    ("WebhookEndpoint shop/keyless", 2),
    // A new process has never reached this broker, so it cannot say what is there.
    ("BrokerConnection /away", 1),
    // Who is in the middle of a renewal is kept in memory: a new process begins with one identity more, whichever it is.
    ("Secret turning/", 1),
    ("ServiceIdentity turning/", 2),
    ("RotationPolicy turning/order", 4),
    ("events turning/", 1),
];

fn allowed(object: &str, route: &str) -> usize {
    let listed = ALLOWED.iter().find(|(name, _)| object.starts_with(name)).map(|(_, most)| *most);
    listed.unwrap_or_else(|| usize::from(object == route))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_0_2_0_left_behind_is_taken_over_without_a_loss_or_a_needless_write() {
    let restored = Restored::from("tests/faults/v0.2.0", &Bed::open().await).await;
    let (bed, sender) = (&restored.bed, restored.sender());
    let namespaces = ["shop", "turning"].map(ToOwned::to_owned);
    let (before, rights) = (restored.objects().await, judges::rights(bed, &namespaces));
    let target = Target::at(18_734).await;

    restored.upgrade();
    same(&before, &restored.objects().await, &[]);

    // The edge comes first, so it serves the routes as 0.2.0 wrote them.
    bed.part("start", "edge");
    let key = signing_key(bed, "shop", "turning").await;
    let stream = Stream::start(sender.clone(), "/shop/turning", key.clone());
    bed.part("start", "operator");
    let next = until("the turning of keys to go on", || async {
        let next = signing_key(bed, "shop", "turning").await;
        if next == key { Err("the same key signs".to_owned()) } else { Ok(next) }
    })
    .await;
    stream.add(next);
    let (writes, after) = (restored.settled().await, restored.objects().await);
    let uid = before["WebhookEndpoint shop/turning"].fixed.split(' ').next().unwrap();
    let route = format!("Secret credence-edge/route-{uid}");
    let is_reworded = |object: &str| {
        let both = after.get(object).zip(before.get(object));
        both.is_some_and(|(now, before)| now.is_reworded(before))
    };
    let most = |object: &str| allowed(object, &route) + usize::from(is_reworded(object));
    let needless = writes.iter().filter(|(object, count)| **count > most(object));
    let needless: Vec<_> =
        needless.map(|(object, count)| (object, count, before.get(object), after.get(object))).collect();
    assert!(needless.is_empty(), "{needless:#?}");
    // One identity was in the middle of it, so at most one of the others has begun.
    let holder = before["RotationPolicy turning/order"].status["inProgress"][0].as_str().unwrap();
    let secret = |object: &'_ String| object.strip_prefix("Secret ")?.strip_suffix("-mtls").map(ToOwned::to_owned);
    let renewed: Vec<String> = writes.keys().filter_map(secret).collect();
    assert!(
        renewed.len() <= 1 && !renewed.iter().any(|name| name == holder),
        "{holder} was renewed before: {renewed:?}"
    );
    let besides: Vec<&str> = writes.keys().map(String::as_str).filter(|object| allowed(object, &route) > 0).collect();
    same(&before, &after, &besides);
    assert_eq!(judges::rights(bed, &namespaces), rights, "no right was given or taken");

    // The broker that was away is back. It is looked for less and less often, so the rest goes on meanwhile.
    let _way = Proxy::between("127.0.0.1:18733", bed.env("KAFKA_BOOTSTRAP")).await;
    deliver(&restored, &target).await;
    send_out(&restored).await;
    bed.condition("RotationPolicy", Some("turning"), "order", "Rotated", ("True", "Renewed")).await;
    for name in ["first", "second", "third"] {
        let ready = bed.ready("ServiceIdentity", Some("turning"), name).await;
        let serial = |status: &Value| status["certificate"]["serialNumber"].to_string();
        let was = serial(&before[&format!("ServiceIdentity turning/{name}")].status);
        let is_holder = holder == format!("turning/{name}");
        assert_eq!(serial(&ready.data["status"]) == was, is_holder, "{name}: {holder} was renewed before already");
    }
    gone(bed, "turning", "leaving").await;
    let mut left = rights.clone();
    left.retain(|right| !right.contains("name=turning.leaving,") && !right.contains("name=turning-first,"));
    assert_eq!(judges::rights(bed, &namespaces), left, "the deletion that waited is done");

    // What policies say about their end still holds, where the platform allows it.
    let allow = json!({"spec": {"allowOrphan": true}});
    let connections = bed.api("BrokerConnection", None);
    connections.patch("kafka", &PatchParams::default(), &Patch::Merge(&allow)).await.unwrap();
    until("the policy to be told that it may leave its rights", || async {
        let status = bed.get("TopicPolicy", Some("shop"), "left").await.unwrap().data["status"].to_string();
        if status.contains("counts as Delete") { Err(status) } else { Ok(()) }
    })
    .await;
    for name in ["events", "orders-too", "left"] {
        bed.delete("TopicPolicy", Some("shop"), name).await;
        gone(bed, "shop", name).await;
    }
    left.retain(|right| !right.contains("name=shop.events.,") && !right.contains("name=shop-events,"));
    assert_eq!(judges::rights(bed, &namespaces), left, "what is orphaned stays, and what somebody else gives too");

    let answers = stream.end().await;
    assert!(answers.iter().any(|(key, _)| *key == 1), "it has signed with the new key");
    let refused: Vec<_> = answers.iter().filter(|(_, answer)| *answer != 200).collect();
    assert!(refused.is_empty(), "{} of {} deliveries: {refused:?}", refused.len(), answers.len());
}

/// That every object is as it was, and stands as it did; those that are left out may stand otherwise.
fn same(before: &BTreeMap<String, Seen>, now: &BTreeMap<String, Seen>, besides: &[&str]) {
    let mut changed = Vec::new();
    for name in before.keys().chain(now.keys().filter(|name| !before.contains_key(*name))) {
        let (was, is) = (before.get(name), now.get(name));
        let reworded = was.zip(is).is_some_and(|(was, is)| is.is_reworded(was));
        if was != is && !reworded && !besides.contains(&name.as_str()) {
            changed.push(format!("{name}:\n{was:#?}\n{is:#?}"));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

async fn gone(bed: &Bed, namespace: &str, name: &str) {
    until(&format!("the TopicPolicy {name} to go"), || async {
        let left = bed.get("TopicPolicy", Some(namespace), name).await;
        left.map_or(Ok(()), |left| Err(left.data["status"].to_string()))
    })
    .await;
}

/// An entry of a Secret in the namespace of the shop.
async fn entry(bed: &Bed, secret: &str, entry: &str) -> String {
    String::from_utf8(bed.secret("shop", secret).await.unwrap().data.unwrap()[entry].0.clone()).unwrap()
}

/// Delivers to every endpoint with the keys that 0.2.0 made or took, and once more to each.
async fn deliver(restored: &Restored, target: &Target) {
    let (bed, sender) = (&restored.bed, restored.sender());
    let body = r#"{"data": {"id": "order-7"}}"#;
    let orders = bed.mount("shop", "orders-mtls").await;
    let [certificate, key] = ["tls.crt", "tls.key"].map(|file| orders.join(file).display().to_string());
    let certified = ["--cert", certificate.as_str(), "--key", key.as_str()];
    let file = |name: &str| std::fs::read_to_string(restored.file(&format!("keys/{name}.key"))).unwrap();
    let (issuer, private) = (file("issuer"), file("sender"));
    let caller = sender.sign_as("caller", &issuer, "caller", "");

    let mut cases: Vec<(&str, Vec<String>)> = Vec::new();
    for name in ["payments", "turned", "note", "record", "caller"] {
        let mut headers = sender.sign(&signing_key(bed, "shop", name).await, name, body);
        headers.extend(caller.iter().filter(|_| name == "caller").cloned());
        cases.push((name, headers));
    }
    let keys: Vec<Value> = serde_json::from_str(&entry(bed, "turned-webhook-keys", "keys.json").await).unwrap();
    let former = keys.iter().find(|key| key["notAfter"].is_string()).unwrap()["key"].as_str().unwrap();
    cases.push(("turned", sender.sign(former, "former", body)));
    for (name, scheme) in [
        ("private", "standard-webhooks"),
        ("gitlab", "gitlab"),
        ("stripe", "stripe"),
        ("slack", "slack"),
        ("shopify", "shopify"),
    ] {
        cases.push((name, sender.sign_as(scheme, &signing_key(bed, "shop", name).await, name, body)));
    }
    for id in ["first", "second"] {
        cases.push((
            "github",
            sender.sign_as("github", &entry(bed, "github-keys", id).await, id, &format!("{body}{id}")),
        ));
    }
    cases.push(("mac", sender.sign_mac(&signing_key(bed, "shop", "mac").await, "mac", body)));
    cases.push(("token", sender.sign_as("jwt", &issuer, "token", body)));
    cases.push(("signature", sender.sign_as("ed25519", &private, "signature", body)));
    let form = "To=%2B15005550006&Body=a+b&Empty=";
    cases.push(("twilio", sender.sign_as("twilio", &signing_key(bed, "shop", "twilio").await, "twilio", form)));

    // Redis remembers what the edge of 0.2.0 let in, by the ID that is signed or by the digest of all that is.
    let (before, first) = (r#"{"sent": "before"}"#, entry(bed, "github-keys", "first").await);
    let again = sender.sign(&signing_key(bed, "shop", "payments").await, "before", before);
    assert_eq!(sender.send("/shop/payments", &[], &again, before), 409, "it was delivered before the upgrade");
    let again = sender.sign_as("github", &first, "another", before);
    assert_eq!(sender.send("/shop/github", &[], &again, before), 409, "it was delivered before the upgrade");

    for (name, headers) in cases {
        let given = headers.iter().find_map(|it| it.strip_prefix("x-github-delivery: "));
        let body = match (name, given) {
            ("twilio", _) => form.to_owned(),
            (_, Some(id)) => format!("{body}{id}"),
            _ => body.to_owned(),
        };
        let options: &[&str] = if name == "gitlab" { &certified } else { &[] };
        let path = format!("/shop/{name}");
        let send = |options: &[&str], headers: &[String]| sender.send(&path, options, headers, &body);
        assert_eq!(send(options, &[]), 403, "{name} without a signature");
        assert_eq!(send(options, &headers), 200, "{name}");
        assert_eq!(send(options, &headers), 409, "{name} again");
        if name == "gitlab" {
            assert_eq!(send(&[], &headers), 403, "{name} without a certificate");
        }
    }
    assert_eq!(sender.send("/shop/keyless", &[], &[], body), 503, "it has no valid key");
    assert!(target.count() > 10, "what was accepted has reached its target");
}

/// Posts to every destination as a service does; one of them has keys that have turned.
async fn send_out(restored: &Restored) {
    let sender = restored.sender();
    let receiver = receive(restored).await;
    let orders = restored.bed.mount("shop", "orders-mtls").await;
    let [certificate, key] = ["tls.crt", "tls.key"].map(|file| orders.join(file).display().to_string());
    let certified = ["--cert", certificate.as_str(), "--key", key.as_str()];
    for (name, signatures) in [("acme", 2), ("old", 1)] {
        let path = format!("/shop/out/{name}");
        assert_eq!(sender.send(&path, &[], &[], "{}"), 403, "{name} without a certificate");
        assert_eq!(sender.send(&path, &certified, &[], "{}"), 200, "{name}");
        let signed = receiver.lock().unwrap().pop().unwrap();
        assert_eq!(signed.split(' ').count(), signatures, "{name}: {signed}");
    }
}

/// A receiver at the destinations of the snapshot, which remembers how it was signed what comes.
async fn receive(restored: &Restored) -> Arc<Mutex<Vec<String>>> {
    let file = |name: &str| restored.file(&format!("keys/receiver.{name}"));
    let chain = CertificateDer::pem_file_iter(file("crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let (tls, signed) = (TlsAcceptor::from(Arc::new(tls)), Arc::new(Mutex::new(Vec::new())));
    let listener = TcpListener::bind("127.0.0.1:18735").await.unwrap();
    let remembered = signed.clone();
    tokio::spawn(async move {
        loop {
            let Ok(stream) = tls.accept(listener.accept().await.unwrap().0).await else { continue };
            let remembered = remembered.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let signature = request.headers()["webhook-signature"].to_str().unwrap().to_owned();
                remembered.lock().unwrap().push(signature);
                async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
            });
            tokio::spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    signed
}

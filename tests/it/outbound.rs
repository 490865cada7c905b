//! Outbound webhooks: posted by curl with the certificate of an identity, received by a server with its own certificate,
//! and verified with the libraries of receivers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_rustls::TlsAcceptor;

use crate::assertion;
use crate::bed::{Bed, identity, manifest, policy, run, until, with};
use crate::hooks::{Received, Target};
use crate::webhook::{audit, check_shared_assertion};
use crate::webhook_objects as objects;

/// A receiver of webhooks whose certificate is for `localhost`.
#[derive(Clone)]
struct Receiver {
    port: u16,
    /// The CA certificate that issued its certificate, in PEM.
    authority: String,
    /// The digest of its public key, for pinning.
    key: String,
    received: Received,
    /// The statuses of the next responses, in order; afterwards 200.
    answers: Arc<Mutex<VecDeque<u16>>>,
    /// While this is locked for writing, no request is answered.
    hold: Arc<RwLock<()>>,
}

impl Receiver {
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pair = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&pair, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        let tls = tls.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            authority: authority.pem(),
            key: STANDARD.encode(digest(&SHA256, &pair.subject_public_key_info())),
            received: Received::default(),
            answers: Arc::default(),
            hold: Arc::default(),
        };
        tokio::spawn(receiver.clone().serve(listener, TlsAcceptor::from(Arc::new(tls))));
        receiver
    }

    fn answers(&self, statuses: &[u16]) {
        self.answers.lock().unwrap().extend(statuses);
    }

    fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    fn last(&self) -> (HeaderMap, Bytes) {
        self.received.lock().unwrap().last().cloned().unwrap()
    }
}

impl Receiver {
    async fn serve(self, listener: TcpListener, tls: TlsAcceptor) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, receiver) = (tls.clone(), self.clone());
            let service = service_fn(move |request| {
                let receiver = receiver.clone();
                async move { Ok::<_, Infallible>(receiver.answer(request).await) }
            });
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut headers = parts.headers;
        headers.insert("x-path", parts.uri.to_string().parse().unwrap());
        self.received.lock().unwrap().push((headers, body));
        let _ = self.hold.read().await;
        let status = self.answers.lock().unwrap().pop_front().unwrap_or(200);
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
        response
    }
}

/// A namespace with an identity that is allowed to send.
struct Scene {
    bed: Bed,
    namespace: String,
    certificate: PathBuf,
    spiffe_id: String,
}

impl Scene {
    async fn open(test: &str) -> Self {
        let bed = Bed::open().await;
        let namespace = bed.namespace(test).await;
        Self::within(bed, namespace).await
    }

    async fn within(bed: Bed, namespace: String) -> Self {
        bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
        let ready = bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
        let spiffe_id = ready.data["status"]["spiffeID"].as_str().unwrap().to_owned();
        let certificate = bed.mount(&namespace, "orders-mtls").await;
        Self { bed, namespace, certificate, spiffe_id }
    }

    fn destination(&self, name: &str, receiver: &Receiver) -> Value {
        manifest(
            "WebhookDestination",
            Some(&self.namespace),
            name,
            json!({
                "path": format!("/{}/out/{name}", self.namespace),
                "source": {"clientCertificate": {"spiffeIDs": [self.spiffe_id]}},
                "signing": {"standardWebhooks": {}},
                "target": {
                    "url": format!("https://localhost:{}/in?token=hidden", receiver.port),
                    "caBundle": receiver.authority,
                    "attempts": 1,
                },
                "forwardHeaders": ["content-type"],
            }),
        )
    }

    async fn ready(&self, destination: Value) {
        let name = destination["metadata"]["name"].as_str().unwrap().to_owned();
        self.bed.apply(destination).await.unwrap();
        self.bed.ready("WebhookDestination", Some(&self.namespace), &name).await;
    }

    /// Posts a message with curl as a service would, and returns the status of the response.
    fn post(&self, name: &str, certificate: Option<&Path>, headers: &[&str], body: &str) -> u16 {
        let url = format!("{}/{}/out/{name}", self.bed.env("EDGE_URL"), self.namespace);
        let mut arguments = vec!["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"];
        arguments.extend(["--cacert", self.bed.env("EDGE_CA"), "--data-binary", "@-"]);
        arguments.extend(["--header", "content-type: application/json"]);
        for header in headers {
            arguments.extend(["--header", header]);
        }
        let files =
            certificate.map(|folder| ["tls.crt", "tls.key"].map(|file| folder.join(file).display().to_string()));
        if let Some([certificate, key]) = &files {
            arguments.extend(["--cert", certificate, "--key", key]);
        }
        arguments.push(&url);
        let (ok, text) = run("curl", &arguments, body);
        assert!(ok, "{text}");
        text.trim().parse().unwrap()
    }

    fn send(&self, name: &str, id: &str, body: &str) -> u16 {
        self.post(name, Some(&self.certificate), &[&format!("webhook-id: {id}")], body)
    }

    /// Whether a receiver with this key accepts the message.
    fn verifies(&self, key: &str, (headers, body): &(HeaderMap, Bytes)) -> bool {
        let named = headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())));
        let headers = Value::Object(named.collect()).to_string();
        let python = format!("{}/bin/python3", self.bed.env("SIGNERS"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signers/sign.py");
        run(&python, &[script, "verify", key, &headers], std::str::from_utf8(body).unwrap()).0
    }

    async fn key(&self, name: &str, entry: &str) -> String {
        let secret = self.bed.secret(&self.namespace, &format!("{name}-webhook-signing-keys")).await.unwrap();
        String::from_utf8(secret.data.unwrap()[entry].0.clone()).unwrap()
    }

    fn audit(&self, name: &str) -> Vec<Value> {
        audit(&self.bed, &format!("{}/{name}", self.namespace))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbound_message_is_signed_and_delivered() {
    let scene = Scene::open("out").await;
    let receiver = Receiver::start().await;
    scene.ready(scene.destination("acme", &receiver)).await;
    let key = scene.key("acme", "signing-key").await;
    let body = r#"{"type": "paid",  "amount": 7}"#;

    assert_eq!(scene.send("acme", "msg_1", body), 200);
    let message = receiver.last();
    assert_eq!(message.1, body, "the body is unchanged");
    assert_eq!(
        (&message.0["webhook-id"], &message.0["x-path"]),
        (&"msg_1".parse().unwrap(), &"/in?token=hidden".parse().unwrap())
    );
    assert_eq!(message.0["content-type"], "application/json");
    assert!(scene.verifies(&key, &message), "{:?}", message.0);
    assert!(!scene.verifies("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &message), "another key does not verify");
    let mut names: Vec<&str> = message.0.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "x-path",
    ];
    assert_eq!(names, expected, "no other headers are sent");

    assert_eq!(scene.post("acme", Some(&scene.certificate), &[], body), 200, "a missing ID is generated");
    assert!(receiver.last().0["webhook-id"].to_str().unwrap().starts_with("msg_"));

    assert_eq!(scene.post("acme", None, &["webhook-id: msg_2"], body), 403, "without a certificate");
    scene.bed.apply(identity(&scene.namespace, "other", &[])).await.unwrap();
    scene.bed.ready("ServiceIdentity", Some(&scene.namespace), "other").await;
    let other = scene.bed.mount(&scene.namespace, "other-mtls").await;
    assert_eq!(scene.post("acme", Some(&other), &["webhook-id: msg_3"], body), 403, "another service");
    for id in ["a.b", "a b", ""] {
        let header = if id.is_empty() { "webhook-id;".to_owned() } else { format!("webhook-id: {id}") };
        assert_eq!(scene.post("acme", Some(&scene.certificate), &[&header], body), 400, "{id:?}");
    }
    assert_eq!(receiver.count(), 2);

    let lines = scene.audit("acme");
    let reasons: Vec<&str> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    let wrong = "WrongDeliveryId";
    assert_eq!(reasons, ["Delivered", "Delivered", "WrongSource", "WrongSource", wrong, wrong, wrong]);
    assert_eq!((&lines[0]["direction"], &lines[0]["delivery"]), (&json!("Outbound"), &json!("msg_1")));
    assert_eq!(lines[0]["target"], format!("https://localhost:{}/in", receiver.port), "without the query");
    assert_eq!((&lines[0]["targetStatus"], &lines[0]["sourceIdentity"]), (&json!(200), &json!(scene.spiffe_id)));
    assert_eq!(lines[0]["key"], scene.key("acme", "signing-key-id").await);
    let log = std::fs::read_to_string(scene.bed.env("EDGE_AUDIT_LOG")).unwrap();
    assert!(!log.contains(&key) && !log.contains("hidden"));
    until("the use of the key to be in the status", || async {
        let found = scene.bed.get("WebhookDestination", Some(&scene.namespace), "acme").await.unwrap();
        let keys = found.data["status"]["keys"].clone();
        if keys[0]["lastVerified"].is_string() { Ok(()) } else { Err(keys.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_active_key_signs_during_a_rotation() {
    let scene = Scene::open("signing").await;
    let receiver = Receiver::start().await;
    let destination = scene.destination("acme", &receiver);
    scene.ready(destination.clone()).await;
    let policy = json!({"targets": [{"kind": "WebhookDestination"}], "credentials": {"overlap": "12s"}});
    scene.bed.apply(manifest("RotationPolicy", Some(&scene.namespace), "rotate", policy)).await.unwrap();
    until("the policy to select the destination", || async {
        let found = scene.bed.get("RotationPolicy", Some(&scene.namespace), "rotate").await.unwrap();
        if found.data["status"]["targets"] == 1 { Ok(()) } else { Err(found.data["status"].to_string()) }
    })
    .await;
    let secret = scene.key("acme", "signing-key").await;
    assert_eq!(scene.key("acme", "verification-key").await, secret, "both sides have the same key");
    let asymmetric = json!({"generated": {"algorithm": "Ed25519"}});
    scene.bed.apply(with(destination, "/spec/keys", asymmetric)).await.unwrap();
    let public = until("a public key", || async {
        let key = scene.key("acme", "verification-key").await;
        if key.starts_with("whpk_") { Ok(key) } else { Err("it is still the shared secret".to_owned()) }
    })
    .await;
    assert!(scene.key("acme", "signing-key").await.starts_with("whsk_"));
    let found = scene.bed.get("WebhookDestination", Some(&scene.namespace), "acme").await.unwrap();
    let status = found.data["status"].to_string();
    assert!(status.contains(&public) && !status.contains("whsk_") && !status.contains("whsec_"), "{status}");
    assert_eq!(scene.send("acme", "msg_1", "{}"), 200);
    let both = receiver.last();
    assert!(scene.verifies(&secret, &both), "a receiver with the previous key accepts it: {:?}", both.0);
    assert!(scene.verifies(&public, &both), "a receiver with the new key accepts it: {:?}", both.0);
    assert_eq!(scene.audit("acme")[0]["key"].as_str().unwrap().split(',').count(), 2);
    until("the previous key to expire", || async {
        assert_eq!(scene.send("acme", "msg_2", "{}"), 200);
        let signatures = receiver.last().0["webhook-signature"].to_str().unwrap().to_owned();
        if signatures.contains("v1,") { Err(signatures) } else { Ok(()) }
    })
    .await;
    assert!(scene.verifies(&public, &receiver.last()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_verified_by_host_key_and_address() {
    let scene = Scene::open("pinned").await;
    let receiver = Receiver::start().await;
    let valid = scene.destination("acme", &receiver);
    let url = |host: &str| json!(format!("https://{host}:{}/in", receiver.port));
    let other = Receiver::start().await;
    let mut no_authority = valid.clone();
    no_authority["spec"]["target"].as_object_mut().unwrap().remove("caBundle");
    let cases = [
        (with(valid.clone(), "/spec/target/publicKeys", json!([other.key, receiver.key])), 200, "Delivered"),
        (with(valid.clone(), "/spec/target/publicKeys", json!([other.key])), 502, "TargetUntrusted"),
        (with(valid.clone(), "/spec/target/caBundle", json!(other.authority)), 502, "TargetUntrusted"),
        (no_authority, 502, "TargetUntrusted"),
        // The certificate is valid for the name, not for the address.
        (with(valid.clone(), "/spec/target/url", url("127.0.0.1")), 502, "TargetUntrusted"),
        (with(valid.clone(), "/spec/target/url", url("127.0.0.2")), 502, "AddressRefused"),
        (with(valid.clone(), "/spec/target/url", url("[::1]")), 502, "AddressRefused"),
        (with(valid.clone(), "/spec/target/url", url("[::ffff:169.254.169.254]")), 502, "AddressRefused"),
        (with(valid.clone(), "/spec/target/url", url("10.0.0.1")), 502, "AddressRefused"),
        (with(valid, "/spec/target/url", json!("https://localhost:1/in")), 502, "TargetUnreachable"),
    ];
    for (destination, status, reason) in cases {
        let target = destination["spec"]["target"].to_string();
        scene.ready(destination).await;
        assert_eq!(scene.send("acme", "msg_1", "{}"), status, "{target}");
        assert_eq!(scene.audit("acme").last().unwrap()["reason"], reason, "{target}");
    }
    assert_eq!((receiver.count(), other.count()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_retried_and_then_dead_lettered() {
    let scene = Scene::open("dead").await;
    let receiver = Receiver::start().await;
    let office = Target::start().await;
    let mut destination = scene.destination("acme", &receiver);
    destination["spec"]["target"]["attempts"] = json!(2);
    scene.ready(destination.clone()).await;
    receiver.answers(&[503]);
    assert_eq!(scene.send("acme", "msg_1", "{}"), 200);
    let received = receiver.received.lock().unwrap().clone();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].0["webhook-id"], received[1].0["webhook-id"]);
    assert_ne!(
        received[0].0["webhook-timestamp"], received[1].0["webhook-timestamp"],
        "each attempt has its own signature"
    );
    for (answers, attempts) in [(&[410][..], 1), (&[302], 1), (&[500, 429], 2)] {
        let before = receiver.count();
        receiver.answers(answers);
        assert_eq!(scene.send("acme", "msg_2", "{}"), 502, "{answers:?}");
        assert_eq!(receiver.count() - before, attempts, "{answers:?}");
    }

    let letter = json!({"service": {"name": "office", "port": office.port, "path": "/hooks", "attempts": 1}});
    scene.ready(with(destination, "/spec/deadLetter", letter)).await;
    receiver.answers(&[503, 503]);
    assert_eq!(scene.send("acme", "msg_3", r#"{"kept": true}"#), 202);
    let (headers, body) = office.received.lock().unwrap()[0].clone();
    assert_eq!(
        (body.as_ref(), &headers["credence-failure"]),
        (&br#"{"kept": true}"#[..], &"TargetRefused".parse().unwrap())
    );
    assert_eq!(
        (&headers["idempotency-key"], &headers["content-type"]),
        (&"msg_3".parse().unwrap(), &"application/json".parse().unwrap())
    );
    let assertion = headers["credence-assertion"].to_str().unwrap();
    let audience = format!("office.{}.svc", scene.namespace);
    let claims = assertion::verify(&scene.bed, assertion, &audience, r#"{"kept": true}"#).unwrap();
    assert_eq!((&claims["failure"], &claims["source"]), (&json!("TargetRefused"), &json!(scene.spiffe_id)));
    *office.status.lock().unwrap() = StatusCode::INTERNAL_SERVER_ERROR;
    receiver.answers(&[410]);
    assert_eq!(scene.send("acme", "msg_4", "{}"), 502, "the dead letter failed, so the sender must retry");
    let lines = scene.audit("acme");
    let reasons: Vec<(&str, &Value)> =
        lines.iter().map(|line| (line["reason"].as_str().unwrap(), &line["failure"])).collect();
    let (none, refused) = (&Value::Null, &json!("TargetRefused"));
    assert_eq!(lines[4]["txn"], claims["txn"], "a dead letter is of the transaction of its message");
    assert_eq!(reasons[4..], [("DeadLettered", refused), ("TargetRefused", refused)]);
    assert_eq!(reasons[..2], [("Delivered", none), ("TargetRefused", none)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_dead_letters_can_share_a_key_for_assertions() {
    const KEY: &str = "0123456789abcdef0123456789abcdef";
    let scene = Scene::open("office").await;
    let (receiver, office) = (Receiver::start().await, Target::start().await);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "shared", "namespace": scene.namespace, "labels": {"credence.dev/webhook-keys": "true"}},
        "stringData": {"first": KEY},
    });
    scene.bed.apply(secret).await.unwrap();
    let letter = json!({"service": {
        "name": "office", "port": office.port, "path": "/hooks", "attempts": 1,
        "assertion": {"hs256": {"secretRef": {"name": "shared"}}},
    }});
    scene.ready(with(scene.destination("acme", &receiver), "/spec/deadLetter", letter)).await;
    receiver.answers(&[410]);
    assert_eq!(scene.send("acme", "msg_1", "{}"), 202);
    let (headers, _) = office.received.lock().unwrap()[0].clone();
    let assertion = headers["credence-assertion"].to_str().unwrap();
    let audience = format!("office.{}.svc", scene.namespace);
    let claims = check_shared_assertion(&scene.bed, assertion, &audience, KEY).unwrap();
    assert_eq!((&claims["failure"], &claims["source"]), (&json!("TargetRefused"), &json!(scene.spiffe_id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_can_be_a_kafka_record() {
    let scene = Scene::open("letters").await;
    let (bed, namespace) = (&scene.bed, &scene.namespace);
    let receiver = Receiver::start().await;
    let topic = format!("sandbox.{namespace}");
    bed.kafka("kafka-topics", &["--create", "--topic", &topic, "--partitions", "1"]);
    let letters = json!({"kafka": {"broker": "kafka", "serviceIdentity": "letters", "topic": topic}});
    let destination = with(scene.destination("acme", &receiver), "/spec/deadLetter", letters);
    bed.apply(destination.clone()).await.unwrap();
    let unmet = |reason| ("False", reason);
    let kind = "WebhookDestination";
    bed.condition(kind, Some(namespace), "acme", "Accepted", unmet("IdentityNotFound")).await;
    bed.apply(identity(namespace, "letters", &[])).await.unwrap();
    bed.condition(kind, Some(namespace), "acme", "Accepted", unmet("IdentityHasNoAccount")).await;
    bed.apply(identity(namespace, "letters", &["kafka"])).await.unwrap();
    let grants = json!([{"identity": {"name": "letters"}, "actions": ["Publish"]}]);
    bed.apply(policy(namespace, "letters", &topic, grants)).await.unwrap();
    bed.ready("TopicPolicy", Some(namespace), "letters").await;
    bed.ready(kind, Some(namespace), "acme").await;
    receiver.answers(&[410]);
    assert_eq!(scene.send("acme", "msg_1", r#"{"kept": true}"#), 202);
    let arguments = ["--topic", &topic, "--from-beginning", "--max-messages", "1", "--timeout-ms", "15000"];
    let print = ["--formatter-property", "print.key=true", "--formatter-property", "print.headers=true"];
    let record = bed.kafka("kafka-console-consumer", &[&arguments[..], &print].concat());
    assert!(record.contains("credence-failure:TargetRefused"), "{record}");
    assert!(record.contains("msg_1\t{\"kept\": true}"), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_can_be_a_kubernetes_object() {
    let bed = Bed::open().await;
    let namespace = objects::namespace(&bed, "deadobject", false).await;
    objects::allow_edge_to_impersonate(&bed, &namespace).await;
    let scene = Scene::within(bed, namespace).await;
    let receiver = Receiver::start().await;
    let template = objects::config_map(json!({"letter": "$(delivery.body)", "assertion": "$(delivery.assertion)"}));
    let object = json!({"object": {"serviceAccountName": objects::ACCOUNT, "template": template}});
    scene.ready(with(scene.destination("acme", &receiver), "/spec/deadLetter", object)).await;
    for _ in 0..2 {
        receiver.answers(&[410]);
        assert_eq!(scene.send("acme", "msg_1", r#"{"kept": true}"#), 202, "a repeated message is dead-lettered again");
    }
    let created = objects::created(&scene.bed, "ConfigMap", &scene.namespace, "acme").await;
    assert_eq!(created.len(), 1, "a message creates one object");
    assert_eq!(created[0].data["data"]["letter"], r#"{"kept": true}"#);
    let audience = format!("configmap.{}", scene.namespace);
    let given = created[0].data["data"]["assertion"].as_str().unwrap();
    let claims = assertion::verify(&scene.bed, given, &audience, r#"{"kept": true}"#).unwrap();
    assert_eq!((&claims["failure"], &claims["jti"]), (&json!("TargetRefused"), &json!("msg_1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_destination_holds_a_limited_number_of_messages() {
    const AT_ONCE: usize = 64;
    let scene = Arc::new(Scene::open("hangs").await);
    let receiver = Receiver::start().await;
    scene.ready(with(scene.destination("acme", &receiver), "/spec/target/timeout", json!("60s"))).await;
    let held = receiver.hold.write().await;
    let mut senders = JoinSet::new();
    for number in 0..AT_ONCE {
        let scene = scene.clone();
        senders.spawn(async move { spawn_blocking(move || scene.send("acme", &format!("msg_{number}"), "{}")).await });
    }
    until("all messages to be in progress", || async {
        let count = receiver.count();
        if count == AT_ONCE { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    assert_eq!(scene.send("acme", "msg_more", "{}"), 503);
    assert_eq!(scene.audit("acme").last().unwrap()["reason"], "TargetBusy");
    let other = Receiver::start().await;
    scene.ready(scene.destination("other", &other)).await;
    assert_eq!(scene.send("other", "msg_1", "{}"), 200, "other destinations are not affected");
    drop(held);
    for answer in senders.join_all().await {
        assert_eq!(answer.unwrap(), 200);
    }
    assert_eq!(scene.send("acme", "msg_more", "{}"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_destination_reports_why_it_is_not_served() {
    let scene = Scene::open("outspec").await;
    let receiver = Receiver::start().await;
    let valid = scene.destination("acme", &receiver);
    let refused = |object: Value, wanted: &'static str| {
        let bed = &scene.bed;
        async move {
            let message = bed.apply(object).await.expect_err(wanted);
            assert!(message.contains(wanted), "{message:?} does not contain {wanted:?}");
        }
    };
    refused(with(valid.clone(), "/spec/source", json!({"cidrs": ["127.0.0.1/32"]})), "name the identities").await;
    refused(with(valid.clone(), "/spec/signing", json!({})), "set standardWebhooks").await;
    for header in ["webhook-signature", "txn-token", "baggage"] {
        refused(with(valid.clone(), "/spec/forwardHeaders", json!([header])), "never forwarded").await;
    }
    for url in ["http://localhost/in", "https://user@localhost/", "https://localhost/#x", "https:///in", "https://a b/"]
    {
        refused(with(valid.clone(), "/spec/target/url", json!(url)), "url").await;
    }
    scene.ready(valid.clone()).await;
    refused(with(valid.clone(), "/spec/path", json!("/other")), "immutable").await;

    let endpoint = manifest(
        "WebhookEndpoint",
        Some(&scene.namespace),
        "acme",
        json!({
            "path": valid["spec"]["path"],
            "verification": {"standardWebhooks": {}},
            "target": {"service": {"name": "x", "port": 80}},
        }),
    );
    scene.bed.apply(endpoint).await.unwrap();
    let claimed = ("False", "PathClaimed");
    scene.bed.condition("WebhookEndpoint", Some(&scene.namespace), "acme", "Accepted", claimed).await;
    assert_eq!(scene.send("acme", "msg_1", "{}"), 200, "the older object keeps the path");
    scene.bed.delete("WebhookDestination", Some(&scene.namespace), "acme").await;
    scene.bed.ready("WebhookEndpoint", Some(&scene.namespace), "acme").await;

    for (field, value) in [("caBundle", "no PEM"), ("url", "https://2130706433/in")] {
        let broken = with(scene.destination("broken", &receiver), &format!("/spec/target/{field}"), json!(value));
        scene.bed.apply(broken).await.unwrap();
        let invalid = ("False", "InvalidSpec");
        scene.bed.condition("WebhookDestination", Some(&scene.namespace), "broken", "Accepted", invalid).await;
    }
    let external = json!({"external": {"secretRef": {"name": "mine"}}});
    scene.ready(scene.destination("mine", &receiver)).await;
    scene.bed.apply(with(scene.destination("mine", &receiver), "/spec/keys", external)).await.unwrap();
    let secret = |key: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "mine", "namespace": scene.namespace, "labels": {"credence.dev/webhook-keys": "true"}},
            "stringData": {"first": key},
        })
    };
    scene.bed.apply(secret("whpk_AAAA")).await.unwrap();
    let invalid = ("False", "KeysInvalid");
    scene.bed.condition("WebhookDestination", Some(&scene.namespace), "mine", "KeysReady", invalid).await;
    let credence::edge::webhook::signing::KeyPairText { private, public } =
        credence::edge::webhook::signing::key_pair(&[7; 32]).unwrap();
    scene.bed.apply(secret(private.expose())).await.unwrap();
    let ready = scene.bed.ready("WebhookDestination", Some(&scene.namespace), "mine").await;
    assert_eq!(ready.data["status"]["keys"][0]["publicKey"], public);
    let created = scene.bed.secret(&scene.namespace, "mine-webhook-signing-keys").await;
    assert!(created.is_none(), "the generated key Secret is deleted");
    assert_eq!(scene.send("mine", "msg_1", "{}"), 200);
    assert!(scene.verifies(&public, &receiver.last()));
}

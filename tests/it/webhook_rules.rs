//! Checks of an endpoint besides the signature: caller, rate, and idempotency key.

use serde_json::{Value, json};

use crate::bed::{Bed, identity, with};
use crate::hooks::{Target, endpoint, now, signing_key};
use crate::webhook::{audit, send, send_as, sign};

/// A served endpoint of Standard Webhooks with one additional field in its spec.
struct Scene {
    bed: Bed,
    namespace: String,
    target: Target,
    key: String,
}

impl Scene {
    async fn open(test: &str, field: &str, value: Value) -> Self {
        let bed = Bed::open().await;
        let namespace = bed.namespace(test).await;
        let target = Target::start().await;
        let scene = Self { bed, namespace, target, key: String::new() };
        scene.set(field, value).await;
        let key = signing_key(&scene.bed, &scene.namespace, "hook").await;
        Self { key, ..scene }
    }

    async fn set(&self, field: &str, value: Value) {
        let object = endpoint(&self.namespace, "hook", &self.target, json!({"standardWebhooks": {}}));
        self.bed.apply(with(object, &format!("/spec/{field}"), value)).await.unwrap();
        self.bed.ready("WebhookEndpoint", Some(&self.namespace), "hook").await;
    }

    fn signed(&self, id: &str, body: &str) -> Vec<String> {
        sign(&self.bed, "standard-webhooks", &self.key, id, now(), body)
    }

    /// Sends a correctly signed delivery.
    fn send(&self, id: &str, options: &[&str], body: &str) -> u16 {
        send_as(&self.bed, &self.path(), options, &self.signed(id, body), body)
    }

    fn path(&self) -> String {
        format!("/{}/hook", self.namespace)
    }

    fn reasons(&self) -> Vec<String> {
        let lines = audit(&self.bed, &format!("{}/hook", self.namespace));
        lines.iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_callers_with_an_allowed_certificate_are_accepted() {
    let nobody = json!({"spiffeIDs": ["spiffe://demo.credence.example/ns/nobody/sa/nobody"]});
    let scene = Scene::open("certified", "source", json!({"clientCertificate": nobody})).await;
    let (bed, namespace) = (&scene.bed, &scene.namespace);
    let bundle = std::fs::read_to_string(bed.env("EDGE_CA")).unwrap();
    let named = format!("named.{namespace}.svc");
    let with_name = with(identity(namespace, "named", &[]), "/spec/authentication/mtls/dnsNames", json!([named]));
    bed.apply(with_name).await.unwrap();
    bed.apply(identity(namespace, "plain", &[])).await.unwrap();
    let mut spiffe_id = String::new();
    for name in ["named", "plain"] {
        let ready = bed.ready("ServiceIdentity", Some(namespace), name).await;
        ready.data["status"]["spiffeID"].as_str().unwrap().clone_into(&mut spiffe_id);
    }
    let mount = |folder: &std::path::Path| ["tls.crt", "tls.key"].map(|file| folder.join(file).display().to_string());
    let certificates =
        [mount(&bed.mount(namespace, "named-mtls").await), mount(&bed.mount(namespace, "plain-mtls").await)];
    let [as_named, as_plain] = certificates.each_ref().map(|[chain, key]| ["--cert", chain, "--key", key]);
    assert_eq!(scene.send("msg_1", &as_named, "{}"), 403, "a certificate with a name that is not allowed");
    for (pin, may, may_not) in [
        (json!({"dnsNames": [named], "caBundle": bundle}), as_named, as_plain),
        (json!({"spiffeIDs": [spiffe_id]}), as_plain, as_named),
    ] {
        scene.set("source", json!({"clientCertificate": pin})).await;
        let id = pin.to_string().len().to_string();
        assert_eq!(scene.send(&id, &may_not, "{}"), 403, "{pin}");
        assert_eq!(scene.send(&id, &[], "{}"), 403, "{pin}, without a certificate");
        assert_eq!(scene.send(&id, &may, "{}"), 200, "{pin}");
        assert_eq!(send_as(bed, &scene.path(), &may, &[], "{}"), 403, "a certificate does not replace the signature");
    }
    let reasons = scene.reasons();
    assert_eq!(reasons[1..5], ["WrongSource", "WrongSource", "Delivered", "MissingHeader"]);
    let lines = audit(bed, &format!("{namespace}/hook"));
    assert_eq!(lines.last().unwrap()["sourceIdentity"], spiffe_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_proxy_can_forward_an_address() {
    let far = json!(["203.0.113.0/24"]);
    let scene = Scene::open("proxied", "source", json!({"cidrs": far})).await;
    let by = |address: &str| format!("x-forwarded-for: {address}");
    let (allowed, other) = (by("203.0.113.9"), by("198.51.100.1"));
    assert_eq!(scene.send("msg_1", &["--header", &allowed], "{}"), 403, "the caller is not a trusted proxy");
    scene.set("source", json!({"cidrs": far, "trustedProxies": ["127.0.0.0/8"]})).await;
    assert_eq!(scene.send("msg_1", &["--header", &other], "{}"), 403);
    assert_eq!(
        scene.send("msg_1", &["--header", &by("203.0.113.9, 198.51.100.1")], "{}"),
        403,
        "the last address counts"
    );
    assert_eq!(scene.send("msg_1", &["--header", &allowed], "{}"), 200);
    let lines = audit(&scene.bed, &format!("{}/hook", scene.namespace));
    assert_eq!(lines.last().unwrap()["source"], "203.0.113.9");
    assert_eq!(scene.reasons(), ["WrongSource", "WrongSource", "WrongSource", "Delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_the_rate_limit_can_call_again_later() {
    let limits = json!({"perSecond": 4, "perSourcePerSecond": 2});
    let scene = Scene::open("often", "limits", limits).await;
    let from = |last: u8| format!("127.0.66.{last}");
    let send = |id: String, from: &str| scene.send(&id, &["--interface", from], "{}");
    let answers: Vec<u16> = (0..4).map(|number| send(format!("one_{number}"), &from(31))).collect();
    assert_eq!(answers[0], 200);
    assert!(answers.contains(&429), "the limit of one address applies: {answers:?}");
    let others: Vec<u16> = (0..8).map(|number| send(format!("other_{number}"), &from(40 + number))).collect();
    assert!(others.contains(&429), "the limit of all addresses applies: {others:?}");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(send("later".to_owned(), &from(31)), 200);
    assert!(scene.reasons().contains(&"TooMany".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_deliveries_with_the_same_idempotency_key_are_one() {
    let scene = Scene::open("same", "replay", json!({"idempotencyKey": "/data/id"})).await;
    let body = r#"{"data": {"id": "order-7"}, "try": 1}"#;
    assert_eq!(scene.send("msg_1", &[], body), 200);
    assert_eq!(
        scene.send("msg_2", &[], &body.replace("1}", "2}")),
        409,
        "another ID and body, the same idempotency key"
    );
    assert_eq!(scene.send("msg_3", &[], &body.replace('7', "8")), 200);
    for without in [r#"{"data": {}}"#, r#"{"data": {"id": ""}}"#, r#"{"data": {"id": null}}"#, "no JSON"] {
        assert_eq!(scene.send("msg_4", &[], without), 403, "{without}");
    }
    assert_eq!(send(&scene.bed, &scene.path(), &scene.signed("msg_5", body), &body.replace('7', "9")), 403);
    assert_eq!(scene.target.count(), 2);
    let none = "NoIdempotencyKey";
    assert_eq!(scene.reasons(), ["Delivered", "Replayed", "Delivered", none, none, none, none, "WrongSignature"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_numbers_that_differ_in_one_digit_are_two_deliveries() {
    let scene = Scene::open("digits", "replay", json!({"idempotencyKey": "/id"})).await;
    let (first, second) = (r#"{"id": 20261125223400000001}"#, r#"{"id": 20261125223400000002}"#);
    assert_eq!(scene.send("msg_1", &[], first), 200);
    assert_eq!(scene.send("msg_2", &[], second), 200);
    assert_eq!(scene.send("msg_3", &[], first), 409);
    assert_eq!(scene.send("msg_4", &[], r#"{"id": 3, "id": 4}"#), 403, "which of the two it is depends on the reader");
    assert_eq!(scene.target.count(), 2);
    assert_eq!(scene.reasons(), ["Delivered", "Delivered", "Replayed", "NoIdempotencyKey"]);
}

//! Inbound webhooks: signed by the senders' own libraries, sent by curl, received by a target on this machine.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use base64::Engine;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::assertion;
use crate::bed::{Bed, manifest, openssl, run, until, with};
use crate::hooks::{Target, endpoint, now, signing_key};

/// The external URL, which some schemes sign.
const URL: &str = "https://hooks.example.com/in";

/// The headers that a sender's own library generates.
pub fn sign(bed: &Bed, scheme: &str, key: &str, id: &str, at: i64, body: &str) -> Vec<String> {
    let at = at.to_string();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signers");
    let (ok, text) = if ["github", "standard-webhooks-js"].contains(&scheme) {
        let (libraries, script) = (format!("NODE_SIGNERS={}", bed.env("NODE_SIGNERS")), format!("{folder}/sign.mjs"));
        run("env", &[&libraries, "node", &script, scheme, key, id, &at], body)
    } else {
        let (python, script) = (format!("{}/bin/python3", bed.env("SIGNERS")), format!("{folder}/sign.py"));
        run(&python, &[&script, scheme, key, id, &at, URL], body)
    };
    assert!(ok, "{scheme}: {text}");
    text.lines().map(ToOwned::to_owned).collect()
}

/// Sends a delivery with curl, and returns the status of the response.
pub fn send(bed: &Bed, path: &str, headers: &[String], body: &str) -> u16 {
    send_as(bed, path, &[], headers, body)
}

/// The same with additional options of curl.
pub fn send_as(bed: &Bed, path: &str, options: &[&str], headers: &[String], body: &str) -> u16 {
    let url = format!("{}{path}", bed.env("EDGE_URL"));
    let mut arguments = vec!["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"];
    arguments.extend(["--cacert", bed.env("EDGE_CA"), "--data-binary", "@-"]);
    arguments.extend(options);
    if !headers.iter().any(|header| header.starts_with("content-type")) {
        arguments.extend(["--header", "content-type: application/json"]);
    }
    for header in headers {
        arguments.extend(["--header", header]);
    }
    arguments.push(&url);
    let (ok, text) = run("curl", &arguments, body);
    assert!(ok, "{text}");
    text.trim().parse().unwrap()
}

/// The audit lines of an endpoint, once none is queued any more: a line is written a moment after the answer.
pub fn audit(bed: &Bed, endpoint: &str) -> Vec<Value> {
    let queued = || {
        let (_, metrics) = run("curl", &["--silent", bed.env("EDGE_METRICS_URL")], "");
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(r#"credence_edge_room_taken_ratio{room="audit"} "#));
        line.is_none_or(|used| used.parse::<f64>().unwrap() > 0.0)
    };
    assert!((0..200).any(|_| !queued()), "audit lines are queued for ever");
    let log = std::fs::read_to_string(bed.env("EDGE_AUDIT_LOG")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["endpoint"] == endpoint).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_reaches_its_target_once_and_is_audited() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("hooks").await;
    let target = Target::start().await;
    bed.apply(endpoint(&namespace, "payments", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    let ready = bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
    let key = signing_key(&bed, &namespace, "payments").await;
    assert!(!ready.data["status"].to_string().contains(&key), "the status contains no key");
    let path = format!("/{namespace}/payments");
    let body = r#"{"type": "paid",  "amount": 7}"#;

    let headers = sign(&bed, "standard-webhooks", &key, "msg_1", now(), body);
    assert_eq!(send(&bed, &path, &headers, body), 200);
    let (given, received) = target.received.lock().unwrap()[0].clone();
    assert_eq!(received, body, "the body is unchanged");
    assert_eq!(given["idempotency-key"], "msg_1");
    assert_eq!(given["content-type"], "application/json");
    assert!(given.get("webhook-signature").is_none() && given.get("user-agent").is_none(), "{given:?}");
    let assertion = given["credence-assertion"].to_str().unwrap();
    let claims = assertion::verify(&bed, assertion, &format!("payments.{namespace}.svc"), body).unwrap();
    assert_eq!(claims["endpoint"], format!("{namespace}/payments"));
    assert_eq!(
        (&claims["jti"], claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()),
        (&json!("msg_1"), 60)
    );

    assert_eq!(send(&bed, &path, &headers, body), 409, "a replay");
    let stale = sign(&bed, "standard-webhooks", &key, "msg_2", now() - 3600, body);
    assert_eq!(send(&bed, &path, &stale, body), 403);
    let other = sign(&bed, "standard-webhooks", &key, "msg_3", now(), body);
    assert_eq!(send(&bed, &path, &other, &body.replace('7', "8")), 403, "another body");
    assert_eq!(send(&bed, &path, &[], body), 403, "no signature");
    assert_eq!(send(&bed, &format!("{path}/other"), &other, body), 404);
    assert_eq!(target.count(), 1, "only the first delivery has reached the target");

    let lines = audit(&bed, &format!("{namespace}/payments"));
    let reasons: Vec<&str> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["Delivered", "Replayed", "TooOld", "WrongSignature", "MissingHeader"]);
    assert_eq!(lines[0]["delivery"], "msg_1");
    assert_eq!(lines[0]["targetStatus"], 200);
    let transactions: BTreeSet<&str> = lines.iter().map(|line| line["txn"].as_str().unwrap()).collect();
    assert_eq!(transactions.len(), lines.len(), "each attempt has its own");
    assert!(transactions.iter().all(|txn| txn.parse::<Uuid>().unwrap().get_version_num() == 7), "{transactions:?}");
    assert_eq!(lines[0]["txn"], claims["txn"], "the assertion has the txn of the audit line");
    assert!(lines[0]["key"].is_string() && lines[0]["source"] == "127.0.0.1" && lines[0]["bodySHA256"].is_string());
    let log = std::fs::read_to_string(bed.env("EDGE_AUDIT_LOG")).unwrap();
    assert!(!log.contains(&key) && !log.contains("amount"), "the audit log contains neither keys nor bodies");
}

/// The claims of an assertion that is a MAC with this key.
pub fn check_shared_assertion(bed: &Bed, token: &str, audience: &str, key: &str) -> Result<Value, String> {
    let python = format!("{}/bin/python3", bed.env("SIGNERS"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signers/sign.py");
    let (ok, text) = run(&python, &[script, "shared", token, audience, key], "");
    if ok { Ok(serde_json::from_str(&text).unwrap()) } else { Err(text) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_for_a_target_that_shares_a_key_is_a_mac_with_it() {
    const KEYS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    let bed = Bed::open().await;
    let namespace = bed.namespace("shared").await;
    let target = Target::start().await;
    let secret = |entries: Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "shared", "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
            "stringData": entries,
        })
    };
    let mut object = endpoint(&namespace, "payments", &target, json!({"standardWebhooks": {}}));
    object["spec"]["target"]["service"]["assertion"] = json!({"hs256": {"secretRef": {"name": "shared"}}});
    bed.apply(object).await.unwrap();
    bed.condition("WebhookEndpoint", Some(&namespace), "payments", "KeysReady", ("False", "KeysInvalid")).await;
    bed.apply(secret(json!({"first": &KEYS[0][1..]}))).await.unwrap();
    until("the short key is refused", || async {
        let object = bed.get("WebhookEndpoint", Some(&namespace), "payments").await.unwrap();
        let conditions = object.data["status"]["conditions"].to_string();
        if conditions.contains("32 bytes") { Ok(()) } else { Err(conditions) }
    })
    .await;
    bed.apply(secret(json!({"first": KEYS[0]}))).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;

    let key = signing_key(&bed, &namespace, "payments").await;
    let (path, audience) = (format!("/{namespace}/payments"), format!("payments.{namespace}.svc"));
    let deliver = |id: &str| {
        let headers = sign(&bed, "standard-webhooks", &key, id, now(), "{}");
        assert_eq!(send(&bed, &path, &headers, "{}"), 200);
        let (given, _) = target.received.lock().unwrap().last().unwrap().clone();
        given["credence-assertion"].to_str().unwrap().to_owned()
    };
    let verify = |token: &str, key: &str| check_shared_assertion(&bed, token, &audience, key);
    let first = deliver("msg_1");
    let claims = verify(&first, KEYS[0]).unwrap();
    assert_eq!((&claims["jti"], &claims["endpoint"]), (&json!("msg_1"), &json!(format!("{namespace}/payments"))));
    assert!(claims["iss"].as_str().unwrap().starts_with("spiffe://") && verify(&first, KEYS[1]).is_err());

    let both = json!({"first": KEYS[0], "second": KEYS[1], "second.notBefore": "2026-01-01T00:00:00Z"});
    bed.apply(secret(both)).await.unwrap();
    let number = AtomicUsize::new(2);
    until("the second key is used", || async {
        let token = deliver(&format!("msg_{}", number.fetch_add(1, Ordering::Relaxed)));
        verify(&token, KEYS[1])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_the_target_refused_can_be_sent_again() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("again").await;
    let target = Target::start().await;
    bed.apply(endpoint(&namespace, "payments", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
    let key = signing_key(&bed, &namespace, "payments").await;
    let (path, body) = (format!("/{namespace}/payments"), "{}");
    let headers = sign(&bed, "standard-webhooks", &key, "msg_1", now(), body);
    *target.status.lock().unwrap() = StatusCode::INTERNAL_SERVER_ERROR;
    assert_eq!(send(&bed, &path, &headers, body), 502);
    *target.status.lock().unwrap() = StatusCode::NO_CONTENT;
    assert_eq!(send(&bed, &path, &headers, body), 200);
    assert_eq!(send(&bed, &path, &headers, body), 409);
    assert_eq!(target.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_rotation_keeps_the_previous_key_valid_for_a_while() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("rotate").await;
    let target = Target::start().await;
    bed.apply(endpoint(&namespace, "payments", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    let before = bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
    let old = signing_key(&bed, &namespace, "payments").await;
    let order = json!({
        "targets": [{"kind": "WebhookEndpoint"}],
        "credentials": {"overlap": "10s"},
        "issuedBefore": (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)).to_string(),
        "suspend": true,
    });
    bed.apply(manifest("RotationPolicy", Some(&namespace), "rotate", order.clone())).await.unwrap();
    until("the policy to select the endpoint", || async {
        let status = bed.get("RotationPolicy", Some(&namespace), "rotate").await.unwrap().data["status"].clone();
        if (&status["targets"], &status["outstanding"]) == (&json!(1), &json!(1)) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    assert_eq!(signing_key(&bed, &namespace, "payments").await, old, "rotation is suspended");
    bed.apply(manifest("RotationPolicy", Some(&namespace), "rotate", with(order, "/suspend", json!(false))))
        .await
        .unwrap();
    let new = until("a new key", || async {
        let key = signing_key(&bed, &namespace, "payments").await;
        if key == old { Err("it is still the old key".to_owned()) } else { Ok(key) }
    })
    .await;
    let (path, body) = (format!("/{namespace}/payments"), "{}");
    for (id, key) in [("msg_1", &old), ("msg_2", &new)] {
        assert_eq!(send(&bed, &path, &sign(&bed, "standard-webhooks", key, id, now(), body), body), 200, "{id}");
    }
    bed.condition("RotationPolicy", Some(&namespace), "rotate", "Rotated", ("True", "Renewed")).await;
    let after = bed.get("WebhookEndpoint", Some(&namespace), "payments").await.unwrap();
    assert_eq!(after.metadata.generation, before.metadata.generation);
    until("the previous key to expire", || async {
        let found = bed.get("WebhookEndpoint", Some(&namespace), "payments").await.unwrap();
        let keys = found.data["status"]["keys"].as_array().unwrap().len();
        if keys == 1 { Ok(()) } else { Err(found.data["status"]["keys"].to_string()) }
    })
    .await;
    let headers = sign(&bed, "standard-webhooks", &old, "msg_3", now(), body);
    assert_eq!(send(&bed, &path, &headers, body), 403, "the previous key has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_can_have_a_private_key_that_the_edge_never_sees() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("private").await;
    let target = Target::start().await;
    let asymmetric = json!({"generated": {"algorithm": "Ed25519"}});
    let github = endpoint(&namespace, "github", &target, json!({"github": {}}));
    let refused = bed.apply(with(github, "/spec/keys", asymmetric.clone())).await.unwrap_err();
    assert!(refused.contains("only Standard Webhooks supports generated key pairs"), "{refused}");
    let object = endpoint(&namespace, "payments", &target, json!({"standardWebhooks": {}}));
    bed.apply(with(object, "/spec/keys", asymmetric)).await.unwrap();
    let ready = bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
    let key = signing_key(&bed, &namespace, "payments").await;
    assert!(key.starts_with("whsk_"));
    let route = bed.secret("credence-edge", &format!("route-{}", ready.metadata.uid.unwrap())).await.unwrap();
    let route = String::from_utf8(route.data.unwrap()["route.json"].0.clone()).unwrap();
    let public = ready.data["status"]["keys"][0]["publicKey"].as_str().unwrap();
    assert!(route.contains(public) && !route.contains("whsk_"));
    let path = format!("/{namespace}/payments");
    let headers = sign(&bed, "standard-webhooks", &key, "msg_1", now(), "{}");
    assert_eq!(send(&bed, &path, &headers, "{} "), 403, "another body");
    assert_eq!(send(&bed, &path, &headers, "{}"), 200);
    assert_eq!(send(&bed, &path, &headers, "{}"), 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_endpoint_is_not_served_and_reports_why() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("refused").await;
    let target = Target::start().await;
    let mut elsewhere = endpoint(&namespace, "elsewhere", &target, json!({"standardWebhooks": {}}));
    elsewhere["spec"]["path"] = json!("/default/elsewhere");
    bed.apply(elsewhere).await.unwrap();
    bed.condition("WebhookEndpoint", Some(&namespace), "elsewhere", "Accepted", ("False", "PathNotAllowed")).await;
    assert_eq!(send(&bed, "/default/elsewhere", &[], "{}"), 404);

    let taken = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken-webhook-keys", "namespace": namespace},
    });
    bed.apply(taken).await.unwrap();
    bed.apply(endpoint(&namespace, "taken", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    bed.condition("WebhookEndpoint", Some(&namespace), "taken", "KeysReady", ("False", "NotOwned")).await;

    let mut external = endpoint(&namespace, "external", &target, json!({"standardWebhooks": {}}));
    external["spec"]["keys"] = json!({"external": {"secretRef": {"name": "mine"}}});
    bed.apply(external).await.unwrap();
    bed.condition("WebhookEndpoint", Some(&namespace), "external", "KeysReady", ("False", "KeysInvalid")).await;
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "mine", "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
        "stringData": {"first": key},
    });
    bed.apply(secret).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "external").await;
    let headers = sign(&bed, "standard-webhooks", key, "msg_1", now(), "{}");
    assert_eq!(send(&bed, &format!("/{namespace}/external"), &headers, "{}"), 200);

    bed.delete("WebhookEndpoint", Some(&namespace), "external").await;
    until("the route to be withdrawn", || async {
        match send(&bed, &format!("/{namespace}/external"), &[], "{}") {
            404 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_no_key_takes_no_route_down() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("stray").await;
    let target = Target::start().await;
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let secret = |entries: Value| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "mine", "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
            "stringData": entries,
        })
    };
    let mut hook = endpoint(&namespace, "hook", &target, json!({"standardWebhooks": {}}));
    hook["spec"]["keys"] = json!({"external": {"secretRef": {"name": "mine"}}});
    bed.apply(hook).await.unwrap();
    bed.apply(secret(json!({"live": key, "README": "how to rotate", "old": key, "old.notAfter": "soon"})))
        .await
        .unwrap();
    let (kind, own) = ("WebhookEndpoint", Some(namespace.as_str()));
    bed.condition(kind, own, "hook", "KeysReady", ("False", "KeysNotUsed")).await;
    let served = bed.condition(kind, own, "hook", "Programmed", ("True", "Programmed")).await;
    let path = format!("/{namespace}/hook");
    let headers = sign(&bed, "standard-webhooks", key, "msg_1", now(), "{}");
    assert_eq!(send(&bed, &path, &headers, "{}"), 200);
    let conditions = served.data["status"]["conditions"].to_string();
    assert!(conditions.contains("README") && conditions.contains("old.notAfter"), "{conditions}");
    assert!(!conditions.contains("how to rotate") && !conditions.contains("soon"), "{conditions}");

    bed.delete("Secret", Some(&namespace), "mine").await;
    bed.apply(secret(json!({"README": "how to rotate"}))).await.unwrap();
    bed.condition(kind, own, "hook", "KeysReady", ("False", "KeysInvalid")).await;
    let headers = sign(&bed, "standard-webhooks", key, "msg_2", now(), "{}");
    until("the edge to answer that it has no key", || async {
        match send(&bed, &path, &headers, "{}") {
            503 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let lines = audit(&bed, &format!("{namespace}/hook"));
    assert_eq!(lines.last().unwrap()["reason"], "NoKey");
    assert_eq!(target.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_keys_that_have_all_ended_are_reported() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("ended").await;
    let target = Target::start().await;
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(8);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "shared", "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
        "stringData": {"only": "0123456789abcdef0123456789abcdef", "only.notAfter": end.to_string()},
    });
    bed.apply(secret).await.unwrap();
    let mut hook = endpoint(&namespace, "hook", &target, json!({"standardWebhooks": {}}));
    hook["spec"]["target"]["service"]["assertion"] = json!({"hs256": {"secretRef": {"name": "shared"}}});
    bed.apply(hook).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "hook").await;
    let ended = bed.condition("WebhookEndpoint", Some(&namespace), "hook", "KeysReady", ("False", "KeysInvalid")).await;
    let conditions = ended.data["status"]["conditions"].to_string();
    assert!(conditions.contains("no key of the Secret shared is valid now"), "{conditions}");
    let key = signing_key(&bed, &namespace, "hook").await;
    let headers = sign(&bed, "standard-webhooks", &key, "msg_1", now(), "{}");
    assert_eq!(send(&bed, &format!("/{namespace}/hook"), &headers, "{}"), 503);
}

/// A scheme with the sender's key, the entry in the edge's key Secret, and whether a timestamp is signed.
struct Case {
    scheme: &'static str,
    verification: Value,
    signs_with: String,
    entry: String,
    fresh: bool,
    body: &'static str,
}

fn cases() -> Vec<Case> {
    let shared = "0123456789abcdef0123456789abcdef";
    let json = r#"{"type": "paid",  "amount": 7}"#;
    let case = |scheme, verification, fresh| Case {
        scheme,
        verification,
        signs_with: shared.to_owned(),
        entry: shared.to_owned(),
        fresh,
        body: json,
    };
    let signature = |algorithm| json!({"httpMessageSignatures": {"algorithm": algorithm}});
    let pair = |scheme, algorithm, options: &[&str]| {
        let private = openssl(&[&["genpkey"], options].concat());
        let public = run("openssl", &["pkey", "-pubout"], &private).1;
        Case { signs_with: private, entry: public, ..case(scheme, signature(algorithm), true) }
    };
    let webhooks = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
    let standard = case("standard-webhooks", json!({"standardWebhooks": {}}), true);
    let p256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let issuer = openssl(&[&["genpkey"], &p256[..]].concat());
    let verification = json!({"jwt": {"issuer": "https://issuer.example", "audience": "hooks", "subject": "sender"}});
    vec![
        Case { signs_with: webhooks.clone(), entry: webhooks.clone(), ..standard },
        Case {
            signs_with: webhooks.clone(),
            entry: webhooks,
            ..case("standard-webhooks-js", json!({"standardWebhooks": {}}), true)
        },
        case("github", json!({"github": {}}), false),
        case("gitlab", json!({"gitlab": {}}), false),
        case("stripe", json!({"stripe": {}}), true),
        case("slack", json!({"slack": {}}), true),
        case("shopify", json!({"shopify": {}}), false),
        Case { body: "To=%2B15005550006&Body=a+b&Empty=", ..case("twilio", json!({"twilio": {}}), false) },
        case("hmac-sha256", signature("HmacSha256"), true),
        pair("ed25519", "Ed25519", &["-algorithm", "ED25519"]),
        pair("ecdsa-p256-sha256", "EcdsaP256Sha256", &p256),
        pair("rsa-pss-sha512", "RsaPssSha512", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        Case { entry: jwks(&issuer), signs_with: issuer, ..case("jwt", verification, true) },
    ]
}

/// The public half of an ECDSA key as a key set (RFC 7517).
fn jwks(private: &str) -> String {
    let (_, hex) =
        run("sh", &["-c", "openssl pkey -pubout -outform DER | tail -c 64 | od -An -v -tx1 | tr -d ' \\n'"], private);
    let half = |digits: &str| {
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    };
    let (x, y) = (half(&hex[..64]), half(&hex[64..]));
    json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig", "x": x, "y": y}]})
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_deliveries_signed_by_sender_libraries_are_accepted() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("signers").await;
    let target = Target::start().await;
    for case in cases() {
        let Case { scheme, verification, signs_with, entry, fresh, body } = case;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": scheme, "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
            "stringData": {"first": entry},
        });
        bed.apply(secret).await.unwrap();
        let mut object = endpoint(&namespace, scheme, &target, verification);
        object["spec"]["keys"] = json!({"external": {"secretRef": {"name": scheme}}});
        object["spec"]["externalURL"] = json!(URL);
        if scheme == "gitlab" {
            object["spec"]["source"] = json!({"cidrs": ["127.0.0.0/8"]});
        }
        bed.apply(object).await.unwrap();
        bed.ready("WebhookEndpoint", Some(&namespace), scheme).await;
        let path = format!("/{namespace}/{scheme}");
        let before = target.count();
        let signed = |id: &str, at: i64| sign(&bed, scheme, &signs_with, id, at, body);
        let signed_at = now();
        let headers = signed("msg_1", signed_at);
        assert_eq!(send(&bed, &path, &headers, body), 200, "{scheme}");
        assert_eq!(send(&bed, &path, &headers, body), 409, "{scheme}, a replay");
        assert_eq!(target.count(), before + 1, "{scheme}");

        // A plain token is not a signature; only the token itself can be altered.
        let headers = signed("msg_2", now());
        let secret_header = |header: &String| {
            header.contains("signature")
                || header.contains("hmac")
                || header.contains("token")
                || header.contains("authorization")
        };
        for (what, alter) in
            [("truncated", truncated as fn(&str) -> String), ("flipped", flipped), ("re-encoded", reencoded)]
        {
            let secret = |header: &String| secret_header(header) && !header.contains("signature-input");
            let altered = headers.iter().map(|header| if secret(header) { alter(header) } else { header.clone() });
            let altered: Vec<String> = altered.collect();
            assert_ne!(altered, headers, "{scheme}, {what}");
            assert_eq!(send(&bed, &path, &altered, body), 403, "{scheme}, {what}: {altered:?}");
        }
        if scheme != "gitlab" {
            assert_eq!(send(&bed, &path, &headers, &format!("{body} ")), 403, "{scheme}, another body");
            let rewritten = body.replace("  ", " ").replace("Empty=", "Empty");
            assert_ne!(rewritten, body);
            // Twilio signs the fields of a form and not its encoding, so this is a replay of the first delivery.
            let answer = if scheme == "twilio" { 409 } else { 403 };
            assert_eq!(send(&bed, &path, &headers, &rewritten), answer, "{scheme}, an equivalent body");
        }
        // A signed ID cannot be changed, and changing an unsigned ID does not make another delivery.
        let delivered = signed("msg_1", signed_at);
        let renamed = delivered.iter().map(|header| match header.strip_suffix(": msg_1") {
            Some(name) => format!("{name}: msg_9"),
            None => header.clone(),
        });
        let renamed: Vec<String> = renamed.collect();
        let answer = if scheme.starts_with("standard-webhooks") { 403 } else { 409 };
        if renamed != delivered {
            assert_eq!(send(&bed, &path, &renamed, body), answer, "{scheme}, with another ID: {renamed:?}");
        }
        if fresh {
            assert_eq!(send(&bed, &path, &signed("msg_3", now() - 3600), body), 403, "{scheme}, an hour old");
            assert_eq!(send(&bed, &path, &signed("msg_4", now() + 3600), body), 403, "{scheme}, an hour ahead");
        }
        assert_eq!(target.count(), before + 1, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_token_is_required_in_addition_to_the_signature() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("callers").await;
    let target = Target::start().await;
    let pair = || openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let (issuer, stranger, password) = (pair(), pair(), "0123456789abcdef0123456789abcdef");
    for (name, entry) in [("issuer", jwks(&issuer)), ("password", password.to_owned())] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
            "stringData": {"first": entry},
        });
        bed.apply(secret).await.unwrap();
    }
    let mut object = endpoint(&namespace, "gitlab", &target, json!({"gitlab": {}}));
    object["spec"]["keys"] = json!({"external": {"secretRef": {"name": "password"}}});
    object["spec"]["source"] = json!({"jwt": {
        "issuer": "https://issuer.example", "audience": "hooks", "subjects": ["runner"], "secretRef": {"name": "issuer"},
    }});
    bed.apply(object).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "gitlab").await;
    let (path, body) = (format!("/{namespace}/gitlab"), "{}");
    let event = sign(&bed, "gitlab", password, "e-1", now(), body);
    let token = |key: &str, subject: &str, at: i64| sign(&bed, "caller", key, subject, at, "").remove(0);
    let call = |tokens: &[String]| send(&bed, &path, &[&event, tokens].concat(), body);
    let good = token(&issuer, "runner", now());

    assert_eq!(call(&[]), 403, "no token");
    assert_eq!(call(&[token(&issuer, "somebody", now())]), 403);
    assert_eq!(call(&[token(&stranger, "runner", now())]), 403);
    assert_eq!(call(&[token(&issuer, "runner", now() - 3601)]), 403, "an hour old");
    assert_eq!(call(&[token(&issuer, "runner", now() + 120)]), 403, "not yet");
    assert_eq!(call(&[good[..=good.rfind('.').unwrap()].to_owned()]), 403, "truncated");
    assert_eq!(call(&[good.clone(), good.clone()]), 403, "twice");
    assert_eq!(send(&bed, &path, std::slice::from_ref(&good), body), 403, "a token alone is not enough");
    assert_eq!(target.count(), 0);
    assert_eq!(call(std::slice::from_ref(&good)), 200);
    let (given, _) = target.received.lock().unwrap()[0].clone();
    assert!(given.get("authorization").is_none(), "{given:?}");
    let assertion = given["credence-assertion"].to_str().unwrap();
    let claims = assertion::verify(&bed, assertion, &format!("gitlab.{namespace}.svc"), body).unwrap();
    assert_eq!(claims["source"], "jwt:https://issuer.example#runner");

    let lines = audit(&bed, &format!("{namespace}/gitlab"));
    let reasons: Vec<_> =
        lines.iter().map(|line| (line["reason"].as_str().unwrap(), line["sourceIdentity"].as_str())).collect();
    let runner = Some("jwt:https://issuer.example#runner");
    assert_eq!(
        reasons,
        [
            ("MissingHeader", None),
            ("WrongSource", None),
            ("WrongSignature", None),
            ("TooOld", None),
            ("TooNew", None),
            ("WrongSignature", None),
            ("MalformedHeader", None),
            ("MissingHeader", runner),
            ("Delivered", runner),
        ]
    );
}

/// A header whose value lacks its last characters.
fn truncated(header: &str) -> String {
    let (kept, _, rest) = last_four(header);
    format!("{kept}{rest}")
}

/// A header with one of the last characters of its value changed.
fn flipped(header: &str) -> String {
    let (kept, last, rest) = last_four(header);
    let other = if last.starts_with('a') { "b" } else { "a" };
    format!("{kept}{other}{}{rest}", &last[1..])
}

/// A header whose value has an equivalent encoding: in upper case, or as base64 with other padding.
fn reencoded(header: &str) -> String {
    let (name, value) = header.split_once(": ").unwrap();
    if value.chars().rev().take(32).all(|digit| digit.is_ascii_hexdigit()) {
        let (kept, digits) = value.split_at(value.len() - 32);
        return format!("{name}: {kept}{}", digits.to_uppercase());
    }
    match value.trim_end_matches(':').strip_suffix('=') {
        Some(unpadded) => {
            format!("{name}: {}{}", unpadded.trim_end_matches('='), if value.ends_with(':') { ":" } else { "" })
        }
        None => format!("{header}="),
    }
}

fn last_four(header: &str) -> (&str, &str, &str) {
    let value = header.trim_end_matches([':', '=']);
    let (kept, last) = value.split_at(value.len() - 4);
    (kept, last, &header[value.len()..])
}

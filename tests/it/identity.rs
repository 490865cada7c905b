//! Certificates and Secrets of identities, checked with OpenSSL and Kafka.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::bed::{Bed, broker_connection, identity, label, openssl, run, self_signed, unique, until, with};

fn file(folder: &std::path::Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_identity_gets_a_certificate_that_openssl_verifies() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("svid").await;
    let name = format!("orders.{namespace}.svc");
    let service = with(identity(&namespace, "orders", &[]), "/spec/authentication/mtls/dnsNames", json!([name]));
    bed.apply(service).await.unwrap();
    let object = bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let id = format!("spiffe://demo.credence.example/ns/{namespace}/sa/orders");
    assert_eq!(object.data["status"]["spiffeID"], id.as_str());

    let folder = bed.mount(&namespace, "orders-mtls").await;
    let (chain, roots) = (file(&folder, "tls.crt"), file(&folder, "ca.crt"));
    for purpose in ["sslserver", "sslclient"] {
        openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-verify_hostname",
            &name,
            "-CAfile",
            &roots,
            "-untrusted",
            &chain,
            &chain,
        ]);
    }
    let text = openssl(&["x509", "-in", &chain, "-noout", "-text"]);
    assert_eq!(text.matches("URI:").count(), 1, "exactly one URI SAN: {text}");
    assert!(text.contains(&format!("URI:{id}")), "{text}");
    assert!(text.contains("Digital Signature") && !text.contains("Certificate Sign"), "{text}");
    let key = openssl(&["pkey", "-in", &file(&folder, "tls.key"), "-pubout"]);
    assert_eq!(key, openssl(&["x509", "-in", &chain, "-noout", "-pubkey"]), "the key belongs to the certificate");
    let starts = openssl(&["x509", "-in", &chain, "-noout", "-startdate", "-dateopt", "iso_8601"]);
    let starts: Timestamp = starts.trim().trim_start_matches("notBefore=").replace(' ', "T").parse().unwrap();
    assert!(Timestamp::now().duration_since(starts) > SignedDuration::from_mins(4), "back-dated for slow clocks");
}

#[tokio::test]
async fn every_supported_key_algorithm_can_be_chosen() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("keys").await;
    for (algorithm, expected) in [("Ed25519", "ED25519"), ("RSA", "rsaEncryption"), ("ECDSA", "prime256v1")] {
        let name = algorithm.to_lowercase();
        let service = identity(&namespace, &name, &[]);
        bed.apply(with(service, "/spec/authentication/mtls/keyAlgorithm", json!(algorithm))).await.unwrap();
        bed.ready("ServiceIdentity", Some(&namespace), &name).await;
        let folder = bed.mount(&namespace, &format!("{name}-mtls")).await;
        let text = openssl(&["x509", "-in", &file(&folder, "tls.crt"), "-noout", "-text"]);
        assert!(text.contains(expected), "{algorithm}: {text}");
        let key = openssl(&["pkey", "-in", &file(&folder, "tls.key"), "-pubout"]);
        assert_eq!(key, openssl(&["x509", "-in", &file(&folder, "tls.crt"), "-noout", "-pubkey"]), "{algorithm}");
    }
}

#[tokio::test]
async fn an_identity_recovers_when_its_trust_domain_appears() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("heals").await;
    let domain = unique("late");
    let service = with(identity(&namespace, "orders", &[]), "/spec/trustDomain", json!(domain));
    bed.apply(service).await.unwrap();
    let refused = ("False", "TrustDomainNotFound");
    let object = bed.condition("ServiceIdentity", Some(&namespace), "orders", "Accepted", refused).await;
    assert!(object.data["status"].to_string().contains(&domain), "the message names the missing trust domain");
    assert!(bed.secret(&namespace, "orders-mtls").await.is_none(), "no Secret is created");
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
}

#[tokio::test]
async fn a_service_cannot_ask_for_the_name_of_another() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("claims").await;
    let names = |name: &str, dns: String| {
        with(identity(&namespace, name, &[]), "/spec/authentication/mtls/dnsNames", json!([dns]))
    };
    for foreign in ["orders.shop.svc", "kubernetes.default.svc.cluster.local", "www.example.com"] {
        bed.apply(names("thief", foreign.into())).await.unwrap();
        let refused = ("False", "DnsNameNotAllowed");
        let object = bed.condition("ServiceIdentity", Some(&namespace), "thief", "Ready", refused).await;
        assert!(object.data["status"].to_string().contains(foreign), "the message names {foreign}");
        assert!(bed.secret(&namespace, "thief-mtls").await.is_none());
    }
    let own = format!("orders.{namespace}.svc");
    bed.apply(names("orders", own.clone())).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bed.apply(names("younger", own)).await.unwrap();
    bed.condition("ServiceIdentity", Some(&namespace), "younger", "Ready", ("False", "DnsNameClaimed")).await;
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
    bed.ready("ServiceIdentity", Some(&namespace), "younger").await;
}

#[tokio::test]
async fn a_trust_domain_limits_dns_suffixes_to_namespaces() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("suffix").await;
    let domain = unique("suffix");
    let rules = json!([{"namespaceSelector": {"matchLabels": {"team": domain}}, "suffixes": ["shop.example"]}]);
    bed.apply(with(self_signed(&domain), "/spec/dnsNames", rules)).await.unwrap();
    let service = with(identity(&namespace, "web", &[]), "/spec/trustDomain", json!(domain));
    let service = with(service, "/spec/authentication/mtls/dnsNames", json!(["www.shop.example"]));
    bed.apply(service).await.unwrap();
    bed.condition("ServiceIdentity", Some(&namespace), "web", "Ready", ("False", "DnsNameNotAllowed")).await;
    label(&bed, &namespace, json!({"team": domain})).await;
    bed.ready("ServiceIdentity", Some(&namespace), "web").await;
}

#[tokio::test]
async fn one_service_account_has_one_identity() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("account").await;
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = with(identity(&namespace, "copy", &[]), "/spec/serviceAccountName", json!("orders"));
    bed.apply(second).await.unwrap();
    bed.condition("ServiceIdentity", Some(&namespace), "copy", "Ready", ("False", "Conflict")).await;
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
    bed.ready("ServiceIdentity", Some(&namespace), "copy").await;
}

#[tokio::test]
async fn a_foreign_secret_is_left_unchanged_and_reported() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("foreign").await;
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "orders-mtls", "namespace": namespace},
        "stringData": {"password": "theirs"},
    });
    let before = bed.apply(foreign).await.unwrap();
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    let object = bed.condition("ServiceIdentity", Some(&namespace), "orders", "Ready", ("False", "NotOwned")).await;
    assert!(object.data["status"].to_string().contains("orders-mtls"));
    let after = bed.get("Secret", Some(&namespace), "orders-mtls").await.unwrap();
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version, "the foreign Secret is not written");
    bed.delete("Secret", Some(&namespace), "orders-mtls").await;
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
}

#[tokio::test]
async fn a_changed_or_deleted_secret_is_issued_again() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("byhand").await;
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let secrets = bed.api("Secret", Some(&namespace));
    let patch = json!({"data": {"ca.crt": "ZXZpbA=="}});
    secrets.patch("orders-mtls", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let evil = |secret: &Secret| secret.data.as_ref().unwrap()["ca.crt"].0 == b"evil";
    until("the changed Secret to be issued again", || async {
        match bed.secret(&namespace, "orders-mtls").await {
            Some(secret) if !evil(&secret) => Ok(()),
            other => Err(format!("{:?}", other.map(|secret| secret.metadata))),
        }
    })
    .await;
    bed.delete("Secret", Some(&namespace), "orders-mtls").await;
    until("the deleted Secret to be issued again", || async {
        bed.secret(&namespace, "orders-mtls").await.ok_or_else(|| "none".to_owned())
    })
    .await;
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
}

#[tokio::test]
async fn names_of_maximum_length_work_with_the_broker() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("limits").await;
    let name = "n".repeat(63);
    let account = format!("{}.{}", "a".repeat(126), "b".repeat(126));
    let service = with(identity(&namespace, &name, &["kafka"]), "/spec/serviceAccountName", json!(account));
    bed.apply(service).await.unwrap();
    let object = bed.ready("ServiceIdentity", Some(&namespace), &name).await;
    assert!(object.data["status"]["spiffeID"].as_str().unwrap().ends_with(&format!("/sa/{account}")));
    let account = &object.data["status"]["brokers"][0];
    assert_eq!(
        account["verifiedFingerprint"], account["certificate"]["fingerprint"],
        "the broker authenticated the account"
    );
}

#[tokio::test]
async fn gateway_trust_ends_at_its_expiry() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("gateway").await;
    let until = |time: Timestamp| {
        let gateway = json!({
            "gateway": {"name": "edge"}, "reason": "the vendor ships no TLS yet",
            "expiresAt": Timestamp::from_second(time.as_second()).unwrap().to_string(),
        });
        with(identity(&namespace, "legacy", &[]), "/spec/authentication", json!({"gatewayOnly": gateway}))
    };
    let now = Timestamp::now();
    bed.apply(until(now + SignedDuration::from_hours(24 * 400))).await.unwrap();
    bed.condition("ServiceIdentity", Some(&namespace), "legacy", "Ready", ("False", "GatewayTrustTooLong")).await;
    bed.apply(until(Timestamp::now() + SignedDuration::from_secs(4))).await.unwrap();
    let object = bed.ready("ServiceIdentity", Some(&namespace), "legacy").await;
    assert!(
        object.data["status"].to_string().contains("without proof of its own"),
        "gateway trust is reported until it expires"
    );
    bed.condition("ServiceIdentity", Some(&namespace), "legacy", "Ready", ("False", "GatewayTrustExpired")).await;
}

#[tokio::test]
async fn an_identity_and_its_broker_must_share_an_environment() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("env").await;
    let broker = unique("production");
    let connection = broker_connection(&broker, bed.env("KAFKA_BOOTSTRAP"));
    bed.apply(with(connection, "/spec/environment", json!("production"))).await.unwrap();
    bed.apply(identity(&namespace, "orders", &[&broker])).await.unwrap();
    bed.condition("ServiceIdentity", Some(&namespace), "orders", "Ready", ("False", "EnvironmentMismatch")).await;
    assert!(bed.secret(&namespace, &format!("orders.{broker}")).await.is_none());
}

/// Written directly to etcd, as an older schema or a restored backup could have left it.
#[tokio::test]
async fn a_malformed_object_in_the_store_does_not_stall_others() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("malformed").await;
    let broken = json!({
        "apiVersion": "credence.dev/v1alpha1", "kind": "ServiceIdentity",
        "metadata": {
            "name": "broken", "namespace": namespace, "uid": "00000000-0000-4000-8000-000000000001",
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1,
        },
        "spec": {"trustDomain": 7, "authentication": "none"},
    });
    let key = format!("/registry/credence.dev/serviceidentities/{namespace}/broken");
    let call = |path: &str, body: serde_json::Value| {
        let url = format!("{}/v3/kv/{path}", bed.env("ETCD_URL"));
        let (ok, output) =
            run("curl", &["--fail", "--silent", "--show-error", "--data", "@-", &url], &body.to_string());
        assert!(ok, "{output}");
    };
    call("put", json!({"key": base64(key.as_bytes()), "value": base64(broken.to_string().as_bytes())}));
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    assert!(bed.secret(&namespace, "broken-mtls").await.is_none());
    call("deleterange", json!({"key": base64(key.as_bytes())}));
}

fn base64(bytes: &[u8]) -> String {
    use k8s_openapi::ByteString;
    serde_json::to_value(ByteString(bytes.to_vec())).unwrap().as_str().unwrap().to_owned()
}

#[tokio::test]
async fn secrets_that_are_no_longer_requested_are_deleted() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("surplus").await;
    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    assert!(bed.secret(&namespace, "orders.kafka").await.is_some());
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    until("the account's Secret to be deleted", || async {
        bed.secret(&namespace, "orders.kafka").await.map_or(Ok(()), |_| Err("it still exists".to_owned()))
    })
    .await;
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
    until("the certificate to be deleted with its owner", || async {
        bed.secret(&namespace, "orders-mtls").await.map_or(Ok(()), |_| Err("it still exists".to_owned()))
    })
    .await;
}

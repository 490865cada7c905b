//! Objects that the API server rejects by schema, CEL rules and admission policies, and its error messages.

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, policy, self_signed, unique, with};

async fn refused(bed: &Bed, manifest: Value, expected: &str) {
    let answer = bed.apply(manifest.clone()).await;
    let message = answer.err().unwrap_or_else(|| panic!("the API server accepted an invalid object: {manifest:#}"));
    assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
}

#[tokio::test]
async fn admit_refuses_two_issuers_and_none() {
    let bed = Bed::open().await;
    let both = json!({"selfSigned": {}, "ca": {"secretRef": {"name": "x"}}});
    let domain = self_signed(&unique("issuers"));
    refused(&bed, with(domain.clone(), "/spec/issuer", both), "exactly one of selfSigned and ca").await;
    refused(&bed, with(domain, "/spec/issuer", json!({})), "exactly one of selfSigned and ca").await;
}

#[tokio::test]
async fn admit_refuses_changes_of_immutable_fields() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("immutable").await;
    let domain = self_signed(&unique("immutable"));
    let service = identity(&namespace, "orders", &[]);
    let service = with(service, "/spec/serviceAccountName", json!("orders"));
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    let topic = policy(&namespace, "orders", "sandbox.immutable", grants);
    let broker = manifest("BrokerConnection", None, &unique("immutable"), broker_spec());
    for (object, field, value) in [
        (&domain, "/spec/domain", "other.example"),
        (&domain, "/spec/environment", "production"),
        (&service, "/spec/trustDomain", "other"),
        (&service, "/spec/serviceAccountName", "other"),
        (&topic, "/spec/broker", "other"),
        (&topic, "/spec/environment", "production"),
        (&broker, "/spec/environment", "production"),
    ] {
        bed.apply(object.clone()).await.unwrap();
        refused(&bed, with(object.clone(), field, json!(value)), "immutable").await;
    }
    let mut without = service.clone();
    without["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    refused(&bed, without, "immutable").await;
    bed.delete("BrokerConnection", None, broker["metadata"]["name"].as_str().unwrap()).await;
}

#[tokio::test]
async fn admit_adds_the_finalizer_to_a_policy_and_keeps_others() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("finalizer").await;
    let grants = json!([{"identity": {"name": "absent"}, "actions": ["Publish"]}]);
    for others in [json!([]), json!(["example.com/mine"])] {
        let mut object = policy(&namespace, "orders", "sandbox.finalizer", grants.clone());
        object["metadata"]["finalizers"] = others.clone();
        // A dry run stores nothing, so the operator cannot have added the finalizer.
        let params = PostParams { dry_run: true, field_manager: None };
        let object = serde_json::from_value(object).unwrap();
        let made = bed.api("TopicPolicy", Some(&namespace)).create(&params, &object).await.unwrap();
        let mut wanted: Vec<String> = serde_json::from_value(others).unwrap();
        wanted.push("credence.dev/revoke-grants".into());
        assert_eq!(made.metadata.finalizers, Some(wanted));
    }
}

fn broker_spec() -> Value {
    json!({
        "environment": "development",
        "kafka": {
            "bootstrapServers": ["127.0.0.1:1"],
            "adminSecretRef": {"name": "absent"},
            "clientAuthentication": "MutualTLS",
        },
    })
}

#[tokio::test]
async fn admit_refuses_gateway_trust_without_expiry_or_with_mtls() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("gateway").await;
    let service = identity(&namespace, "legacy", &[]);
    let gateway = json!({"gateway": {"name": "edge"}, "reason": "the vendor ships no TLS yet"});
    let without_expiry = with(service.clone(), "/spec/authentication", json!({"gatewayOnly": gateway}));
    refused(&bed, without_expiry.clone(), "expiresAt").await;
    let with_expiry = with(without_expiry, "/spec/authentication/gatewayOnly/expiresAt", json!("2027-01-01T00:00:00Z"));
    let both = with(with_expiry.clone(), "/spec/authentication/mtls", json!({}));
    refused(&bed, both, "exactly one of mtls and gatewayOnly").await;
    refused(&bed, with(with_expiry, "/spec/brokers", json!([{"name": "kafka"}])), "set authentication.mtls").await;
    refused(&bed, with(service, "/spec/authentication", json!({})), "exactly one of mtls and gatewayOnly").await;
}

#[tokio::test]
async fn admit_refuses_consume_and_consumer_group_without_each_other() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("groups").await;
    let grant = |actions: Value, group: Option<&str>| {
        let mut grant = json!({"identity": {"name": "orders"}, "actions": actions});
        if let Some(group) = group {
            grant["consumerGroup"] = group.into();
        }
        policy(&namespace, "orders", "sandbox.groups", json!([grant]))
    };
    refused(&bed, grant(json!(["Consume"]), None), "consumerGroup").await;
    refused(&bed, grant(json!(["Publish"]), Some("orders")), "consumerGroup").await;
    refused(&bed, grant(json!(["Consume"]), Some("*")), "every group of the broker").await;
    refused(&bed, grant(json!(["Publish", "Publish"]), None), "uplicate").await;
    let topics = json!({"name": "sandbox.a", "prefix": "sandbox."});
    refused(&bed, with(grant(json!(["Publish"]), None), "/spec/topic", topics), "exactly one of name and prefix").await;
}

#[tokio::test]
async fn admit_refuses_names_that_are_too_long_or_too_general() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("names").await;
    refused(&bed, identity(&namespace, &"a".repeat(64), &[]), "at most 63 characters").await;
    refused(&bed, identity(&namespace, "a.b", &[]), "DNS label").await;
    refused(&bed, self_signed(&"a".repeat(64)), "at most 63 characters").await;
    let names = |names: Value| with(identity(&namespace, "a", &[]), "/spec/authentication/mtls/dnsNames", names);
    refused(&bed, names(json!(["*.names.svc"])), "should match").await;
    refused(&bed, names(json!(["Orders.names.svc"])), "should match").await;
    let rules = json!([{"namespaceSelector": {}, "suffixes": ["cluster.local"]}]);
    refused(&bed, with(self_signed(&unique("suffix")), "/spec/dnsNames", rules), "cannot be given away").await;
}

#[tokio::test]
async fn admit_refuses_invalid_rotation_settings() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("rotation").await;
    let base = json!({"targets": [{"kind": "ServiceIdentity"}]});
    let base = manifest("RotationPolicy", Some(&namespace), "default", base);
    for (field, value, expected) in [
        ("/spec/certificates", json!({"lifetime": "1m"}), "at least 5m"),
        ("/spec/certificates", json!({"lifetime": "90000h"}), "at most 9528h"),
        ("/spec/certificates", json!({"lifetime": "2 days"}), "should match"),
        ("/spec/certificates", json!({"renewAfterPercent": 99}), "less than or equal to 90"),
        ("/spec/windows", json!([{"start": "24:00", "duration": "1h"}]), "should match"),
        ("/spec/windows", json!([{"start": "02:00", "duration": "25h"}]), "at most 24h"),
        ("/spec/maxConcurrent", json!(0), "greater than or equal to 1"),
        ("/spec/targets", json!([{"kind": "ServiceIdentity", "name": "a", "selector": {}}]), "name or selector"),
    ] {
        refused(&bed, with(base.clone(), field, value), expected).await;
    }
    bed.apply(base).await.unwrap();
}

#[tokio::test]
async fn admit_stores_specs_without_rewriting_them() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("verbatim").await;
    let spec = json!({
        "targets": [{"kind": "ServiceIdentity"}],
        "certificates": {"lifetime": "8760h"},
        "windows": [{"start": "02:00", "duration": "90m"}],
    });
    bed.apply(manifest("RotationPolicy", Some(&namespace), "default", spec.clone())).await.unwrap();
    let stored = bed.ready("RotationPolicy", Some(&namespace), "default").await;
    assert_eq!(stored.data["spec"], spec, "no default is added and no duration is normalized");
}

#[tokio::test]
async fn admit_refuses_empty_or_contradictory_webhook_sources() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("pins").await;
    let endpoint = |verification: Value, source: Value| {
        let mut spec = json!({
            "path": format!("/{namespace}/pins"),
            "verification": verification,
            "target": {"service": {"name": "payments", "port": 80}},
            "keys": {"external": {"secretRef": {"name": "keys"}}},
        });
        if !source.is_null() {
            spec["source"] = source;
        }
        manifest("WebhookEndpoint", Some(&namespace), "pins", spec)
    };
    let (github, gitlab) = (json!({"github": {}}), json!({"gitlab": {}}));
    let jwt =
        json!({"issuer": "https://a.example", "audience": "a", "subjects": ["s"], "secretRef": {"name": "issuer"}});
    let pinned = json!({"jwt": jwt});
    refused(&bed, endpoint(gitlab.clone(), Value::Null), "GitLab signs nothing").await;
    refused(&bed, endpoint(github.clone(), json!({})), "set clientCertificate, jwt or cidrs").await;
    for nothing in [json!({"cidrs": []}), json!({"clientCertificate": {"dnsNames": []}})] {
        refused(&bed, endpoint(gitlab.clone(), nothing), "should have at least 1 items").await;
    }
    let pin = |pin: Value| endpoint(github.clone(), json!({"clientCertificate": pin}));
    refused(&bed, pin(json!({"dnsNames": ["a.example"]})), "dnsNames need caBundle").await;
    let id = "spiffe://a.example/ns/a/sa/a";
    refused(&bed, pin(json!({"spiffeIDs": [id], "caBundle": "pem"})), "vouches for dnsNames only").await;
    let long = json!({"dnsNames": ["a.example"], "caBundle": "x".repeat(65537)});
    refused(&bed, pin(long), "Too long").await;
    for (field, value, expected) in [
        ("subjects", json!([]), "should have at least 1 items"),
        ("subjects", json!(vec!["s"; 2]), "uplicate"),
        ("subjects", json!((0..33).map(|it| it.to_string()).collect::<Vec<_>>()), "must have at most 32 items"),
        ("issuer", json!("https://a.example#b"), "should match"),
        ("secretRef", Value::Null, "secretRef"),
    ] {
        let wrong = with(pinned.clone(), &format!("/jwt/{field}"), value);
        refused(&bed, endpoint(github.clone(), wrong), expected).await;
    }
    let scheme = json!({"jwt": {"issuer": "https://a.example", "audience": "a"}});
    refused(&bed, endpoint(scheme.clone(), Value::Null), "every subject of the issuer could send").await;
    refused(&bed, endpoint(with(scheme, "/jwt/subject", json!("s")), pinned.clone()), "says who calls already").await;
    let signatures = json!({"httpMessageSignatures": {"algorithm": "Ed25519"}});
    refused(&bed, endpoint(signatures, Value::Null), "whose host the caller would choose").await;
    let hmac = |mac: &str, id: &str, timestamp: &str| {
        json!({"hmac": {
            "hash": "Sha256",
            "encoding": "Hex",
            "header": mac,
            "parts": [{"id": {"header": id}}, {"literal": "."}, {"timestamp": {"header": timestamp}}, {"body": {}}],
        }})
    };
    for (mac, id, timestamp) in
        [("authorization", "x-id", "x-at"), ("x-mac", "authorization", "x-at"), ("x-mac", "x-id", "authorization")]
    {
        let hmac = endpoint(hmac(mac, id, timestamp), pinned.clone());
        refused(&bed, hmac, "which verification.hmac reads otherwise").await;
    }
    for header in ["authorization", "txn-token", "baggage"] {
        let forwarding = with(endpoint(gitlab.clone(), pinned.clone()), "/spec/forwardHeaders", json!([header]));
        refused(&bed, forwarding, "never forwarded").await;
    }
    for verification in [gitlab, hmac("x-mac", "x-id", "x-at")] {
        bed.apply(endpoint(verification, pinned.clone())).await.unwrap();
    }
}

//! Objects with a finalizer, deleted in every way: what must outlive the request does.

use std::time::Duration;

use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::json;

use crate::bed::{Bed, broker_connection, identity, manifest, policy, self_signed, unique, until, with};
use crate::tenant::{Tenant, consume, principal, publish, stays_without_acls};

async fn delete(bed: &Bed, kind: &str, namespace: Option<&str>, name: &str, policy: PropagationPolicy) {
    let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    bed.api(kind, namespace).delete(name, &params).await.unwrap();
}

async fn is_gone(bed: &Bed, kind: &str, namespace: Option<&str>, name: &str) {
    until(&format!("{kind} {name} to be gone"), || async {
        bed.get(kind, namespace, name).await.map_or(Ok(()), |left| Err(format!("{:?}", left.metadata)))
    })
    .await;
}

#[tokio::test]
async fn a_trust_domain_in_use_keeps_its_keys_however_it_is_deleted() {
    let bed = Bed::open().await;
    for policy in [PropagationPolicy::Foreground, PropagationPolicy::Background, PropagationPolicy::Orphan] {
        let (namespace, domain) = (bed.namespace("foreground").await, unique("foreground"));
        bed.apply(self_signed(&domain)).await.unwrap();
        bed.ready("TrustDomain", None, &domain).await;
        let spec = json!({"trustDomain": domain, "authentication": {"mtls": {}}});
        bed.apply(manifest("ServiceIdentity", Some(&namespace), "app", spec.clone())).await.unwrap();
        bed.ready("ServiceIdentity", Some(&namespace), "app").await;
        let secrets = [format!("{domain}-root-1"), format!("{domain}-intermediate-1")];
        let bundle = format!("{domain}-trust-bundle");
        delete(&bed, "TrustDomain", None, &domain, policy).await;
        let told = bed.condition("TrustDomain", None, &domain, "Accepted", ("False", "InUse")).await.data["status"]
            .to_string();
        assert!(told.contains(&format!("{namespace}/app")), "{told}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        for secret in &secrets {
            assert!(bed.secret("credence-system", secret).await.is_some(), "{secret}");
        }
        assert!(bed.get("ConfigMap", Some("credence-system"), &bundle).await.is_some());
        // It goes on issuing until its last identity is gone.
        bed.delete("Secret", Some(&namespace), "app-mtls").await;
        until("the certificate to be made again", || async {
            bed.secret(&namespace, "app-mtls").await.ok_or_else(|| "it does not exist".to_owned())
        })
        .await;
        bed.delete("ServiceIdentity", Some(&namespace), "app").await;
        is_gone(&bed, "TrustDomain", None, &domain).await;
        for secret in &secrets {
            assert!(bed.secret("credence-system", secret).await.is_none(), "{secret} is left");
        }
        assert!(bed.get("ConfigMap", Some("credence-system"), &bundle).await.is_none());
    }
}

#[tokio::test]
async fn a_tenant_holds_no_shared_object_with_a_finalizer() {
    let tenant = Tenant::new("held").await;
    let (bed, namespace, domain) = (&tenant.bed, Some(tenant.namespace.as_str()), unique("held"));
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.ready("TrustDomain", None, &domain).await;
    let spec = json!({"trustDomain": domain, "authentication": {"mtls": {}}});
    tenant.own.apply(manifest("ServiceIdentity", namespace, "app", spec)).await.unwrap();
    bed.ready("ServiceIdentity", namespace, "app").await;
    tenant.patch("ServiceIdentity", "app", json!({"metadata": {"finalizers": ["example.com/mine"]}})).await;
    bed.delete("TrustDomain", None, &domain).await;
    bed.condition("TrustDomain", None, &domain, "Accepted", ("False", "InUse")).await;
    bed.delete("ServiceIdentity", namespace, "app").await;
    is_gone(bed, "TrustDomain", None, &domain).await;
    assert!(bed.get("ServiceIdentity", namespace, "app").await.is_some(), "the tenant still holds its own object");
    tenant.patch("ServiceIdentity", "app", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn a_broker_connection_in_use_stays_however_it_is_deleted() {
    let bed = Bed::open().await;
    for deletion in [PropagationPolicy::Foreground, PropagationPolicy::Background, PropagationPolicy::Orphan] {
        let (namespace, broker) = (bed.namespace("connection").await, unique("connection"));
        bed.apply(broker_connection(&broker, bed.env("KAFKA_BOOTSTRAP"))).await.unwrap();
        bed.apply(identity(&namespace, "app", &[&broker])).await.unwrap();
        let granted = policy(&namespace, "app", "sandbox.connection", publish("app"));
        bed.apply(with(granted, "/spec/broker", json!(broker))).await.unwrap();
        bed.ready("TopicPolicy", Some(&namespace), "app").await;
        delete(&bed, "BrokerConnection", None, &broker, deletion).await;
        let told = bed.condition("BrokerConnection", None, &broker, "Accepted", ("False", "InUse")).await;
        assert!(told.data["status"].to_string().contains(&format!("{namespace}/app")), "{}", told.data["status"]);
        let records = format!("broker-records.{broker}.0");
        assert!(bed.get("ConfigMap", Some("credence-system"), &records).await.is_some());
        bed.delete("TopicPolicy", Some(&namespace), "app").await;
        is_gone(&bed, "BrokerConnection", None, &broker).await;
        assert_eq!(bed.acls(&principal(&namespace, "app")).trim(), "");
        assert!(bed.get("ConfigMap", Some("credence-system"), &records).await.is_none());
    }
}

#[tokio::test]
async fn a_broker_that_is_gone_for_ever_releases_its_policies() {
    let bed = Bed::open().await;
    let (namespace, broker) = (bed.namespace("gone").await, unique("gone"));
    let connection =
        |server: &str, gone: bool| with(broker_connection(&broker, server), "/spec/decommissioned", json!(gone));
    bed.apply(connection(bed.env("KAFKA_BOOTSTRAP"), false)).await.unwrap();
    bed.apply(identity(&namespace, "app", &[&broker])).await.unwrap();
    let granted = policy(&namespace, "app", "sandbox.gone", publish("app"));
    bed.apply(with(granted, "/spec/broker", json!(broker))).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "app").await;
    bed.apply(connection("127.0.0.1:1", false)).await.unwrap();
    bed.condition("BrokerConnection", None, &broker, "Ready", ("False", "BrokerUnreachable")).await;
    bed.delete("TopicPolicy", Some(&namespace), "app").await;
    bed.condition("TopicPolicy", Some(&namespace), "app", "Applied", ("False", "CleanupPending")).await;
    bed.apply(connection("127.0.0.1:1", true)).await.unwrap();
    is_gone(&bed, "TopicPolicy", Some(&namespace), "app").await;
    bed.condition("BrokerConnection", None, &broker, "Connected", ("False", "Decommissioned")).await;
    bed.delete("BrokerConnection", None, &broker).await;
    is_gone(&bed, "BrokerConnection", None, &broker).await;
    let app = principal(&namespace, "app");
    let right = ["--topic", "sandbox.gone", "--operation", "Write", "--allow-principal", &app];
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &right].concat());
}

#[tokio::test]
async fn a_namespace_that_is_made_anew_inherits_nothing() {
    let tenant = Tenant::new("anew").await;
    let (bed, other) = (&tenant.bed, tenant.bed.namespace("anew-before").await);
    let mut before = identity(&other, "app", &["kafka"]);
    before["spec"]["brokers"][0]["acceptFrom"] = json!([tenant.namespace]);
    bed.apply(before).await.unwrap();
    let grant = with(consume("app", &unique("anew")), "/0/identity/namespace", json!(other));
    tenant.policy("grant", "sandbox.anew", grant).await;
    bed.ready("TopicPolicy", Some(&tenant.namespace), "grant").await;
    bed.delete("Namespace", None, &other).await;
    is_gone(bed, "Namespace", None, &other).await;
    bed.condition("TopicPolicy", Some(&tenant.namespace), "grant", "Ready", ("False", "IdentityNotFound")).await;
    assert_eq!(bed.acls(&principal(&other, "app")).trim(), "");
    bed.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})).await.unwrap();
    bed.apply(identity(&other, "app", &["kafka"])).await.unwrap();
    bed.condition("TopicPolicy", Some(&tenant.namespace), "grant", "Ready", ("False", "GrantNotAccepted")).await;
    stays_without_acls(bed, &principal(&other, "app")).await;
}

#[tokio::test]
async fn a_policy_revokes_and_an_endpoint_is_withdrawn_however_they_are_deleted() {
    let bed = Bed::open().await;
    for policy in [
        Some(PropagationPolicy::Foreground),
        Some(PropagationPolicy::Background),
        Some(PropagationPolicy::Orphan),
        // Its namespace goes.
        None,
    ] {
        let victim = crate::tenant::Victim::new(&bed, "cascade").await;
        let namespace = victim.namespace.as_str();
        let spec = json!({"path": format!("/{namespace}/hook"), "verification": {"standardWebhooks": {}},
            "target": {"service": {"name": "hooks", "port": 1}}});
        let endpoint = bed.apply(manifest("WebhookEndpoint", Some(namespace), "hook", spec)).await.unwrap();
        bed.ready("WebhookEndpoint", Some(namespace), "hook").await;
        let route = format!("route-{}", endpoint.metadata.uid.unwrap());
        assert!(bed.secret("credence-edge", &route).await.is_some());
        if let Some(policy) = policy {
            delete(&bed, "TopicPolicy", Some(namespace), "app", policy.clone()).await;
            delete(&bed, "WebhookEndpoint", Some(namespace), "hook", policy).await;
        } else {
            bed.delete("Namespace", None, namespace).await;
        }
        is_gone(&bed, "TopicPolicy", Some(namespace), "app").await;
        is_gone(&bed, "WebhookEndpoint", Some(namespace), "hook").await;
        assert_eq!(bed.acls(&crate::tenant::principal(namespace, "app")).trim(), "");
        assert!(bed.secret("credence-edge", &route).await.is_none());
    }
}

#[tokio::test]
async fn an_intermediate_that_was_deleted_signs_nothing_any_more() {
    let bed = Bed::open().await;
    let (namespace, domain) = (bed.namespace("intermediate").await, unique("intermediate"));
    bed.apply(self_signed(&domain)).await.unwrap();
    let before = bed.ready("TrustDomain", None, &domain).await.data["status"]["authority"]["fingerprint"].clone();
    let secret = format!("{domain}-intermediate-1");
    bed.delete("Secret", Some("credence-system"), &secret).await;
    let after = until("another intermediate to sign", || async {
        let now = bed.ready("TrustDomain", None, &domain).await.data["status"]["authority"]["fingerprint"].clone();
        if now == before { Err(now.to_string()) } else { Ok(now) }
    })
    .await;
    let stored = bed.secret("credence-system", &secret).await.unwrap().metadata.annotations.unwrap();
    assert_eq!(json!(stored["credence.dev/fingerprint"]), after, "what signs is what is stored");
    let spec = json!({"trustDomain": domain, "authentication": {"mtls": {}}});
    bed.apply(manifest("ServiceIdentity", Some(&namespace), "app", spec)).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "app").await;
    let issued = bed.secret(&namespace, "app-mtls").await.unwrap().metadata.annotations.unwrap();
    assert_eq!(json!(issued["credence.dev/authority"]), after);
    bed.delete("ServiceIdentity", Some(&namespace), "app").await;
    bed.delete("TrustDomain", None, &domain).await;
}

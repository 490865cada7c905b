//! Objects with a finalizer, deleted in every way: what must outlive the request does.

use std::time::Duration;

use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::json;

use crate::bed::{Bed, manifest, self_signed, unique, until};

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
        bed.condition("TrustDomain", None, &domain, "Accepted", ("False", "InUse")).await;
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

//! What somebody can do who has the token of the operator's ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::bed::{Bed, identity, run, unique};
use crate::tenant::Victim;

const SYSTEM: &str = "credence-system";

/// The bed with the rights of the operator.
async fn as_operator(bed: &Bed) -> Bed {
    let accounts: Api<ServiceAccount> = Api::namespaced(bed.client.clone(), SYSTEM);
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).unwrap();
    let answer = accounts.create_token_request("credence", &PostParams::default(), &request).await.unwrap();
    bed.with_token(answer.status.unwrap().token.unwrap()).await
}

fn secret(namespace: &str, name: &str, labels: &Value, type_: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": type_,
        "metadata": {"name": name, "namespace": namespace, "labels": labels,
            "annotations": {"kubernetes.io/service-account.name": "default"}}})
}

#[tokio::test]
async fn the_operator_writes_nothing_but_its_own() {
    let bed = Bed::open().await;
    let operator = as_operator(&bed).await;
    let victim = Victim::new(&bed, "operator").await;
    let namespace = victim.namespace.as_str();
    let ours =
        |component: &str| json!({"app.kubernetes.io/managed-by": "credence", "credence.dev/component": component});
    let (token, tls) = ("kubernetes.io/service-account-token", "Opaque");
    for (what, object) in [
        ("a token of another ServiceAccount", secret("kube-system", "pwn", &json!({}), token)),
        ("such a token with our labels", secret("kube-system", "pwn", &ours("mtls"), token)),
        ("a Secret that is not ours", secret(namespace, "pwn", &json!({}), tls)),
        ("an authority in a namespace of a tenant", secret(namespace, "pwn", &ours("root"), tls)),
        ("a route outside of the edge", secret(namespace, "pwn", &ours("webhook-route"), tls)),
        ("a component that does not exist", secret(namespace, "pwn", &ours("other"), tls)),
    ] {
        let refused = operator.apply(object).await.expect_err(what);
        assert!(refused.contains("the operator of Credence may"), "{what}: {refused}");
    }
    for (kind, namespace, name) in [
        ("ConfigMap", "kube-system", "extension-apiserver-authentication"),
        ("ConfigMap", namespace, "kube-root-ca.crt"),
        ("Secret", SYSTEM, "kafka-admin"),
    ] {
        let api = operator.api(kind, Some(namespace));
        let changed = api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "eA=="}}))).await;
        assert!(changed.unwrap_err().to_string().contains("only what it wrote"), "patch {name}");
        let labelled = json!({"metadata": {"labels": ours("mtls")}});
        let taken = api.patch(name, &PatchParams::default(), &Patch::Merge(labelled)).await;
        assert!(taken.unwrap_err().to_string().contains("only what it wrote"), "label {name}");
        let deleted = api.delete(name, &DeleteParams::default()).await;
        assert!(deleted.unwrap_err().to_string().contains("only what it wrote"), "delete {name}");
    }
    let more = json!({"spec": {"access": [{"namespaceSelector": {}, "topicPrefixes": ["x"]}]}});
    let connections = operator.api("BrokerConnection", None);
    let changed = connections.patch("kafka", &PatchParams::default(), &Patch::Merge(more)).await;
    assert!(changed.unwrap_err().to_string().contains("may not change specs"));
    assert!(
        operator.apply(identity(namespace, &unique("made"), &[])).await.is_err(),
        "it creates no objects of its kinds"
    );
    victim.is_well(&bed).await;
}

#[tokio::test]
async fn the_operator_has_the_rights_that_its_work_takes() {
    let bed = Bed::open().await;
    let can = |verb: &str, resource: &str| {
        let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
        let account = format!("system:serviceaccount:{SYSTEM}:credence");
        let ask = ["--kubeconfig", bed.env("KUBECONFIG"), "auth", "can-i", verb, resource, "--as", &account];
        run(&kubectl, &[&ask[..], &["--all-namespaces"]].concat(), "").0
    };
    for (verb, resource) in [
        ("create", "serviceaccounts/token"),
        ("impersonate", "users"),
        ("create", "pods"),
        ("create", "clusterrolebindings"),
        ("bind", "clusterroles"),
        ("escalate", "clusterroles"),
        ("create", "serviceidentities.credence.dev"),
        ("delete", "topicpolicies.credence.dev"),
        ("patch", "serviceidentities.credence.dev"),
        ("deletecollection", "secrets"),
        ("update", "secrets"),
    ] {
        assert!(!can(verb, resource), "{verb} {resource}");
    }
    assert!(can("patch", "secrets"));
}

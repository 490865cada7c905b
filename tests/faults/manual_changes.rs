//! Manual changes to objects of Credence are reverted and reported once, and contention costs few writes.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::bed::{Bed, identity, manifest, policy, run, self_signed, unique, until};
use crate::operator::Operator;

/// The notes of all events of an object with a reason, repeated by their count.
async fn notes(bed: &Bed, kind: &str, namespace: Option<&str>, name: &str, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::all(bed.client.clone());
    let listed = events.list(&ListParams::default()).await.unwrap();
    let about = |event: &Event| {
        let regarding = event.regarding.clone().unwrap_or_default();
        regarding.kind.as_deref() == Some(kind)
            && regarding.name.as_deref() == Some(name)
            && regarding.namespace.as_deref() == namespace
            && event.reason.as_deref() == Some(reason)
    };
    let mut notes = Vec::new();
    for event in listed.items.into_iter().filter(about) {
        let times = event.series.as_ref().map_or(1, |series| series.count);
        for _ in 0..times {
            notes.push(event.note.clone().unwrap_or_default());
        }
    }
    notes
}

/// How many times the operator has written a Secret, from the API server's audit log.
fn writes(bed: &Bed, namespace: &str, name: &str) -> usize {
    let log = std::fs::read_to_string(format!("{}/logs/audit.log", bed.env("BED_DIR"))).unwrap();
    let object = format!("\"resource\":\"secrets\",\"namespace\":\"{namespace}\",\"name\":\"{name}\"");
    log.lines().filter(|line| line.contains(&object)).count()
}

async fn scribble(bed: &Bed, kind: &str, namespace: &str, name: &str) {
    let nonsense = "bm9uc2Vuc2U=";
    let content = match kind {
        "Secret" => json!({"tls.crt": nonsense, "signing-key": nonsense}),
        _ => json!({"ca.crt": "nonsense"}),
    };
    let manifest = json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "data": content,
    });
    let params = PatchParams::apply("scribbler").force();
    let _ = bed.api(kind, Some(namespace)).patch(name, &params, &Patch::Apply(&manifest)).await;
}

#[tokio::test]
async fn manual_changes_are_reverted_and_reported_once() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let (namespace, domain) = (bed.namespace("manual").await, unique("manual"));
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.ready("TrustDomain", None, &domain).await;
    for name in ["changed", "deleted"] {
        bed.apply(identity(&namespace, name, &["kafka"])).await.unwrap();
        bed.ready("ServiceIdentity", Some(&namespace), name).await;
    }
    let grants = json!([{"identity": {"name": "changed"}, "actions": ["Publish"]}]);
    bed.apply(policy(&namespace, "orders", "sandbox.manual", grants)).await.unwrap();
    bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    let before = notes(&bed, "BrokerConnection", None, "kafka", "DriftRepaired").await.len();

    scribble(&bed, "Secret", &namespace, "changed-mtls").await;
    bed.delete("Secret", Some(&namespace), "deleted-mtls").await;
    let bundle = format!("{domain}-trust-bundle");
    scribble(&bed, "ConfigMap", "credence-system", &bundle).await;
    let principal = format!("User:CN=changed,OU={namespace},O=demo.credence.example");
    let topic = ["--topic", "sandbox.manual", "--operation", "Write", "--allow-principal", &principal];
    bed.kafka("kafka-acls", &[&["--remove", "--force"][..], &topic].concat());

    until("all changes to be reverted", || async {
        let changed = bed.secret(&namespace, "changed-mtls").await.unwrap().data.unwrap()["tls.crt"].0.clone();
        let deleted = bed.secret(&namespace, "deleted-mtls").await;
        let text = bed.get("ConfigMap", Some("credence-system"), &bundle).await.unwrap().data["data"].to_string();
        let acls = bed.acls(&principal);
        let back = changed.starts_with(b"-----BEGIN") && deleted.is_some();
        if back && !text.contains("nonsense") && acls.contains("operation=WRITE") { Ok(()) } else { Err(acls) }
    })
    .await;
    bed.delete("ConfigMap", Some("credence-system"), &bundle).await;
    until("the bundle to be published again", || async {
        bed.get("ConfigMap", Some("credence-system"), &bundle).await.ok_or_else(|| "it does not exist".to_owned())
    })
    .await;
    bed.ready("ServiceIdentity", Some(&namespace), "changed").await;

    tokio::time::sleep(Duration::from_secs(8)).await;
    let reported = notes(&bed, "ServiceIdentity", Some(&namespace), "changed", "Renewed").await;
    assert_eq!(reported, ["renewed changed-mtls because another writer changed the Secret"]);
    let reported = notes(&bed, "ServiceIdentity", Some(&namespace), "deleted", "Renewed").await;
    assert_eq!(reported, ["renewed deleted-mtls because another writer deleted the Secret"]);
    let reported = notes(&bed, "TrustDomain", None, &domain, "DriftRepaired").await.join("; ");
    assert!(reported.contains("changed by scribbler") && reported.contains("(deleted)"), "{reported}");
    assert_eq!(reported.matches("repaired the ConfigMap").count(), 2, "{reported}");
    let reported = notes(&bed, "BrokerConnection", None, "kafka", "DriftRepaired").await;
    assert_eq!(reported.len(), before + 1, "{reported:?}");
    assert_eq!(writes(&bed, &namespace, "changed-mtls"), 2, "created once and restored once");
    bed.delete("TrustDomain", None, &domain).await;
}

#[tokio::test]
async fn a_policy_gets_its_finalizer_without_the_admission_policy() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("finalizer").await;
    let binding: Api<MutatingAdmissionPolicyBinding> = Api::all(bed.client.clone());
    let installed = binding.get("credence-finalizer-topicpolicies").await.unwrap();
    binding.delete("credence-finalizer-topicpolicies", &DeleteParams::default()).await.unwrap();
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    let object = policy(&namespace, "orders", "sandbox.finalizer", grants);
    let dry = PostParams { dry_run: true, field_manager: None };
    until("the API server to stop applying the admission policy", || async {
        let object = serde_json::from_value(object.clone()).unwrap();
        let made = bed.api("TopicPolicy", Some(&namespace)).create(&dry, &object).await.unwrap();
        made.metadata.finalizers.map_or(Ok(()), |found| Err(format!("{found:?}")))
    })
    .await;

    bed.apply(identity(&namespace, "orders", &["kafka"])).await.unwrap();
    bed.apply(object).await.unwrap();
    let ready = bed.ready("TopicPolicy", Some(&namespace), "orders").await;
    assert_eq!(ready.metadata.finalizers, Some(vec!["credence.dev/revoke-grants".to_owned()]));
    bed.delete("TopicPolicy", Some(&namespace), "orders").await;
    let principal = format!("User:CN=orders,OU={namespace},O=demo.credence.example");
    until("its ACLs to be revoked", || async {
        let acls = bed.acls(&principal);
        if acls.contains("WRITE") { Err(acls) } else { Ok(()) }
    })
    .await;

    let mut again = installed;
    again.metadata = ObjectMeta { name: again.metadata.name, labels: again.metadata.labels, ..ObjectMeta::default() };
    binding.create(&PostParams::default(), &again).await.unwrap();
}

#[tokio::test]
async fn a_contended_secret_is_reported_and_costs_few_writes() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("fight").await;
    bed.apply(identity(&namespace, "orders", &[])).await.unwrap();
    bed.apply(identity(&namespace, "uncontended", &[])).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    bed.ready("ServiceIdentity", Some(&namespace), "uncontended").await;
    let before = writes(&bed, &namespace, "orders-mtls");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(25) {
        scribble(&bed, "Secret", &namespace, "orders-mtls").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let written = writes(&bed, &namespace, "orders-mtls") - before;
    assert!((2..=4).contains(&written), "{written} writes in 25 s, against 50 of the other writer");
    let reported = bed.condition("ServiceIdentity", Some(&namespace), "orders", "Ready", ("False", "Contended")).await;
    let status = reported.data["status"].to_string();
    assert!(status.contains("scribbler") && status.contains("orders-mtls"), "{status}");
    let events = notes(&bed, "ServiceIdentity", Some(&namespace), "orders", "Contended").await.len();
    assert!((1..=3).contains(&events), "{events} events");
    bed.ready("ServiceIdentity", Some(&namespace), "uncontended").await;
    // The other writer has stopped, so the next repair is final.
    until("the Secret to be restored", || async {
        let data = bed.secret(&namespace, "orders-mtls").await.unwrap().data.unwrap();
        if data["tls.crt"].0.starts_with(b"-----BEGIN") {
            Ok(())
        } else {
            Err("it still has the other writer's content".to_owned())
        }
    })
    .await;
}

#[tokio::test]
async fn contended_webhook_keys_are_reported_and_rarely_written() {
    let bed = Bed::open().await;
    let _operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("keyfight").await;
    let target = json!({"service": {"name": "payments", "port": 80}});
    let path = format!("/{namespace}/payments");
    let spec = json!({"path": path, "verification": {"standardWebhooks": {}}, "target": target});
    bed.apply(manifest("WebhookEndpoint", Some(&namespace), "payments", spec)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "payments").await;
    let before = writes(&bed, &namespace, "payments-webhook-keys");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        scribble(&bed, "Secret", &namespace, "payments-webhook-keys").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let written = writes(&bed, &namespace, "payments-webhook-keys") - before;
    assert!((2..=4).contains(&written), "{written} writes in 20 s, against 40 of the other writer");
    let contended = ("False", "Contended");
    let reported = bed.condition("WebhookEndpoint", Some(&namespace), "payments", "KeysReady", contended).await;
    let status = &reported.data["status"];
    assert!(status.to_string().contains("scribbler"), "{status}");
    // The route of the edge is not withdrawn.
    let route = format!("route-{}", reported.metadata.uid.as_deref().unwrap());
    assert!(bed.secret("credence-edge", &route).await.is_some(), "{status}");
}

#[tokio::test]
async fn a_namespace_can_be_deleted_with_everything_in_it() {
    let bed = Bed::open().await;
    let operator = Operator::start(&bed, &[], &[]).await;
    let namespace = bed.namespace("whole").await;
    for number in 0..8 {
        let name = format!("service-{number}");
        bed.apply(identity(&namespace, &name, &["kafka"])).await.unwrap();
        let grants = json!([{"identity": {"name": name}, "actions": ["Publish", "Consume"], "consumerGroup": name}]);
        bed.apply(policy(&namespace, &name, &format!("sandbox.whole.{number}"), grants)).await.unwrap();
    }
    for number in 0..8 {
        bed.ready("TopicPolicy", Some(&namespace), &format!("service-{number}")).await;
    }
    let failed = |class: &str| {
        operator.metric(&format!("credence_reconciles_total{{controller=\"service_identity\",outcome=\"{class}\""))
    };
    let before = (failed("needs_user"), failed("bug"));
    let (ok, output) = run(
        &format!("{}/kubectl", bed.env("BED_BIN")),
        &["--kubeconfig", bed.env("KUBECONFIG"), "delete", "namespace", &namespace, "--timeout", "60s"],
        "",
    );
    assert!(ok, "{output}");
    let listed = bed.kafka("kafka-acls", &["--list"]);
    assert!(!listed.contains(&format!("OU={namespace},")), "{listed}");
    assert_eq!(
        (failed("needs_user"), failed("bug")),
        before,
        "nothing was created in a namespace that is being deleted"
    );
}

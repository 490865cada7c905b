//! The health check for Argo CD, run by Argo CD's Lua interpreter on objects from the API server.

use std::collections::{BTreeMap, BTreeSet};

use credence::api::Reason;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, policy, run, self_signed, unique, with};

const SCRIPT: &str = include_str!("../../charts/argocd/health.lua");
const PATCH: &str = include_str!("../../charts/argocd/argocd-cm.yaml");

/// The environment of a script in Argo CD: the basic library, tables, and the object in a global variable.
const DRIVER: &str = r#"
local print = print
getmetatable("").__index = nil
string, math, io, os, debug, coroutine, channel = nil
local function show(object)
    obj = object
    local health = check()
    print(health.status)
    print(health.message)
end
"#;

/// Runs the check on each object, and returns status and message.
fn health(bed: &Bed, objects: &[Value]) -> Vec<(String, String)> {
    let calls: String = objects.iter().map(|object| format!("show({})\n", lua(object))).collect();
    let chunk = format!("local function check()\n{SCRIPT}\nend\n{DRIVER}{calls}");
    let (ok, output) = run(&format!("{}/glua", bed.env("BED_BIN")), &["/dev/stdin"], &chunk);
    let lines: Vec<&str> = output.lines().collect();
    assert!(ok && lines.len() == 2 * objects.len(), "{output}");
    lines.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

fn health_of(bed: &Bed, object: &Value) -> (String, String) {
    health(bed, std::slice::from_ref(object)).remove(0)
}

/// A JSON value as a Lua literal.
fn lua(value: &Value) -> String {
    let text = |text: &str| format!("\"{}\"", text.bytes().map(|byte| format!("\\{byte:03}")).collect::<String>());
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(string) => text(string),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("[{}]={}", text(name), lua(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}

/// An object of some kind whose `Ready` is False.
fn not_ready(reason: &str) -> Value {
    let condition =
        json!({"type": "Ready", "status": "False", "reason": reason, "message": "why", "observedGeneration": 3});
    json!({"metadata": {"generation": 3}, "status": {"conditions": [condition]}})
}

#[tokio::test]
async fn argocd_maps_every_reason_to_a_health_status() {
    let bed = Bed::open().await;
    let passing = [
        Reason::RenewalPending,
        Reason::TrustDomainNotReady,
        Reason::BrokerNotReady,
        Reason::CleanupPending,
        Reason::InUse,
        Reason::NotProgrammed,
        Reason::Blocked,
    ];
    let objects: Vec<Value> = Reason::ALL.iter().map(|reason| not_ready(reason.as_str())).collect();
    for (reason, (status, message)) in Reason::ALL.iter().zip(health(&bed, &objects)) {
        let wanted = match reason {
            Reason::Suspended => "Suspended",
            _ if passing.contains(reason) => "Progressing",
            _ => "Degraded",
        };
        assert_eq!((status.as_str(), message), (wanted, format!("{}: why", reason.as_str())));
    }
    assert_eq!(health_of(&bed, &not_ready("OfALaterVersion")).0, "Degraded");
}

#[tokio::test]
async fn argocd_reports_progressing_while_a_field_is_missing() {
    let bed = Bed::open().await;
    let ready = |condition: Value| json!({"metadata": {"generation": 3}, "status": {"conditions": [condition]}});
    let objects = [
        Value::Null,
        json!({}),
        json!("text"),
        json!({"metadata": {"generation": 1}}),
        json!({"metadata": {"generation": 1}, "status": null}),
        json!({"metadata": {"generation": 1}, "status": "text"}),
        json!({"metadata": {"generation": 1}, "status": {"conditions": "text"}}),
        json!({"metadata": {"generation": 1}, "status": {"conditions": []}}),
        json!({"metadata": {"generation": 1}, "status": {"conditions": ["text", {"type": "Accepted"}]}}),
        json!({"status": {"conditions": [{"type": "Ready"}]}}),
        ready(json!({"type": "Ready", "status": "True"})),
        ready(json!({"type": "Ready", "status": "True", "observedGeneration": 2})),
        ready(json!({"type": "Ready", "status": "Unknown", "observedGeneration": 3})),
    ];
    for (object, (status, _)) in objects.iter().zip(health(&bed, &objects)) {
        assert_eq!(status, "Progressing", "{object}");
    }
    let bare = ready(json!({"type": "Ready", "status": "False", "observedGeneration": 3, "reason": {}}));
    assert_eq!(health_of(&bed, &bare).0, "Degraded");
}

#[tokio::test]
async fn argocd_health_matches_the_status_of_live_objects() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("argocd").await;
    let in_namespace = Some(namespace.as_str());
    let grants = json!([{"identity": {"name": "orders"}, "actions": ["Publish"]}]);
    let topic = format!("sandbox.{namespace}");
    let granted = |name: &str| policy(&namespace, name, &topic, grants.clone());
    let rotation = |name: &str, spec: Value| manifest("RotationPolicy", in_namespace, name, spec);
    let targets = json!([{"kind": "ServiceIdentity"}]);
    let nobody = json!([{"identity": {"name": "nobody"}, "actions": ["Publish"]}]);
    for made in [
        identity(&namespace, "orders", &["kafka"]),
        with(identity(&namespace, "lost", &[]), "/spec/trustDomain", json!("nowhere")),
        granted("granted"),
        with(granted("observed"), "/spec/mode", json!("Observe")),
        with(granted("outside"), "/spec/topic/name", json!("shop.orders")),
        with(granted("elsewhere"), "/spec/environment", json!("production")),
        with(granted("nobody"), "/spec/grants", nobody),
        rotation("followed", json!({"targets": targets})),
        rotation("suspended", json!({"targets": targets, "suspend": true})),
    ] {
        bed.apply(made).await.unwrap();
    }

    let mut seen = BTreeMap::new();
    for (kind, namespace, name, ready, wanted) in [
        ("TrustDomain", None, "demo", ("True", "Ready"), "Healthy"),
        ("BrokerConnection", None, "kafka", ("True", "Ready"), "Healthy"),
        ("ServiceIdentity", in_namespace, "orders", ("True", "Ready"), "Healthy"),
        ("TopicPolicy", in_namespace, "granted", ("True", "Ready"), "Healthy"),
        ("TopicPolicy", in_namespace, "observed", ("True", "Ready"), "Healthy"),
        ("RotationPolicy", in_namespace, "followed", ("True", "Ready"), "Healthy"),
        ("RotationPolicy", in_namespace, "suspended", ("False", "Suspended"), "Suspended"),
        ("ServiceIdentity", in_namespace, "lost", ("False", "TrustDomainNotFound"), "Degraded"),
        ("TopicPolicy", in_namespace, "outside", ("False", "TopicNotAllowed"), "Degraded"),
        ("TopicPolicy", in_namespace, "elsewhere", ("False", "EnvironmentMismatch"), "Degraded"),
        ("TopicPolicy", in_namespace, "nobody", ("False", "IdentityNotFound"), "Degraded"),
    ] {
        let object = bed.condition(kind, namespace, name, "Ready", ready).await;
        let object = serde_json::to_value(object).unwrap();
        let (status, message) = health_of(&bed, &object);
        assert_eq!(status, wanted, "{kind} {name}: {message}");
        if name != "observed" {
            assert!(message.starts_with(&format!("{}: ", ready.1)), "{kind} {name}: {message}");
        }
        seen.insert(name, (object, message));
    }
    let (_, message) = &seen["observed"];
    assert!(message.starts_with("ObserveOnly: only observed: "), "{message}");

    for name in ["orders", "lost", "suspended"] {
        let mut object = seen[name].0.clone();
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        assert_eq!(health_of(&bed, &object).0, "Progressing", "the status of {name} is of an older generation");
        object.as_object_mut().unwrap().remove("status");
        assert_eq!(health_of(&bed, &object).0, "Progressing", "{name} has no observed generation yet");
    }
}

#[tokio::test]
async fn argocd_reports_progressing_during_deletion() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("argocd").await;
    let domain = unique("argocd");
    bed.apply(self_signed(&domain)).await.unwrap();
    bed.apply(with(identity(&namespace, "orders", &[]), "/spec/trustDomain", json!(domain))).await.unwrap();
    bed.ready("ServiceIdentity", Some(&namespace), "orders").await;
    let before = bed.ready("TrustDomain", None, &domain).await;
    bed.delete("TrustDomain", None, &domain).await;
    let waiting = bed.condition("TrustDomain", None, &domain, "Ready", ("False", "InUse")).await;
    assert!(waiting.metadata.generation > before.metadata.generation, "a deletion increments the generation");

    let mut object = serde_json::to_value(waiting).unwrap();
    let (status, message) = health_of(&bed, &object);
    let wanted = "InUse: this trust domain is still used by 1 ServiceIdentity;";
    assert!(status == "Progressing" && message.starts_with(wanted), "{status} {message}");
    object["status"] = serde_json::to_value(&before.data["status"]).unwrap();
    assert_eq!(health_of(&bed, &object), ("Progressing".to_owned(), "it is being deleted".to_owned()));
    bed.delete("ServiceIdentity", Some(&namespace), "orders").await;
}

#[test]
fn argocd_uses_the_same_health_check_for_every_kind() {
    let patch: Value = serde_saphyr::from_str(PATCH).unwrap();
    let checks = patch["data"].as_object().unwrap();
    let crds = credence::api::crds().unwrap();
    let kinds = crds.iter().map(|(_, crd)| crd["spec"]["names"]["kind"].as_str().unwrap());
    let wanted: BTreeSet<String> =
        kinds.map(|kind| format!("resource.customizations.health.credence.dev_{kind}")).collect();
    let found: BTreeSet<String> = checks.keys().cloned().collect();
    assert_eq!(found, wanted, "run charts/argocd/generate");
    for (key, check) in checks {
        assert_eq!(check.as_str(), Some(SCRIPT), "{key} has drifted: run charts/argocd/generate");
    }
}

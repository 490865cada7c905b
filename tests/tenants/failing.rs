//! What fails costs a few writes, requests and events, and then none, and every failure is in the status of its object.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use serde_json::{Value, json};

use crate::bed::{Bed, KINDS, identity, manifest, policy, run, self_signed, unique, until, with};
use crate::refusing_broker::RefusingBroker;
use crate::tenant::{Tenant, Victim, patch_as, publish};

const SYSTEM: &str = "credence-system";
/// How a private key begins in the data of a Secret.
const KEY: &str = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t";
/// After which time nothing may happen to the failing objects any more, and for how long that is looked at.
const SETTLED: Duration = Duration::from_secs(25);
const QUIET: Duration = Duration::from_secs(35);

/// A namespace in which no Secret can be created any more.
async fn poor_namespace(bed: &Bed) -> String {
    let name = bed.namespace("poor").await;
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"secrets": "0"}}});
    let quotas: Api<ResourceQuota> = Api::namespaced(bed.client.clone(), &name);
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    until("the quota to be counted", || async {
        let quota = quotas.get("small").await.unwrap();
        let is_counted = quota.status.and_then(|status| status.used).is_some();
        if is_counted { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    name
}

/// Refuses to create Secrets in a namespace if a condition is met.
async fn refuse(bed: &Bed, name: &str, namespace: &str, condition: &str, message: &str) {
    let secrets =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}]);
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail", "matchConstraints": {"resourceRules": secrets},
        "matchConditions": [{"name": "chosen", "expression": condition}],
        "validations": [{"expression": "false", "messageExpression": message}]}});
    let selected = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}});
    let binding = json!({"metadata": {"name": name}, "spec": {
        "policyName": name, "validationActions": ["Deny"], "matchResources": selected}});
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(bed.client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(bed.client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

async fn permit(bed: &Bed, name: &str) {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(bed.client.clone());
    policies.delete(name, &DeleteParams::default()).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(bed.client.clone());
    bindings.delete(name, &DeleteParams::default()).await.unwrap();
}

fn secret(namespace: &str, name: &str, data: &Value) -> Value {
    let labels = json!({"credence.dev/webhook-keys": "true"});
    json!({"apiVersion": "v1", "kind": "Secret", "data": data,
        "metadata": {"name": name, "namespace": namespace, "labels": labels}})
}

fn endpoint(namespace: &str, name: &str, keys: Option<&str>) -> Value {
    let mut spec = json!({"path": format!("/{namespace}/{name}"), "verification": {"standardWebhooks": {}},
        "target": {"service": {"name": "target", "port": 80}}});
    if let Some(secret) = keys {
        spec["keys"] = json!({"external": {"secretRef": {"name": secret}}});
    }
    manifest("WebhookEndpoint", Some(namespace), name, spec)
}

fn destination(namespace: &str, name: &str) -> Value {
    let caller = json!({"clientCertificate": {"spiffeIDs": ["spiffe://demo.credence.example/ns/shop/sa/orders"]}});
    let spec = json!({"path": format!("/{namespace}/out/{name}"), "signing": {"standardWebhooks": {}}, "source": caller,
        "target": {"url": "https://hooks.example/"}});
    manifest("WebhookDestination", Some(namespace), name, spec)
}

fn connection(name: &str, server: &str, secret: &str) -> Value {
    let spec = json!({"environment": "development",
        "access": [{"namespaceSelector": {}, "topicPrefixes": ["sandbox."]}],
        "kafka": {"bootstrapServers": [server], "clientAuthentication": "MutualTLS", "adminSecretRef": {"name": secret}}});
    manifest("BrokerConnection", None, name, spec)
}

/// Kind, namespace and name.
type Place = (String, Option<String>, String);

fn place(object: &Value) -> Place {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    (text("/kind").unwrap(), text("/metadata/namespace"), text("/metadata/name").unwrap())
}

/// When the status of each object was written, and what it was.
type Writes = Arc<Mutex<BTreeMap<Place, Vec<(Instant, String)>>>>;

/// Records every write of a status from now on.
fn follow(bed: &Bed) -> Writes {
    let writes = Writes::default();
    for kind in KINDS {
        let (api, noted) = (bed.api(kind, None), writes.clone());
        tokio::spawn(async move {
            let mut events = Box::pin(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event else { continue };
                let metadata = object.metadata;
                let place = (kind.to_owned(), metadata.namespace, metadata.name.unwrap());
                let status = object.data["status"].to_string();
                let mut noted = noted.lock().unwrap();
                let of_object = noted.entry(place).or_default();
                if of_object.last().is_none_or(|(_, last)| *last != status) {
                    of_object.push((Instant::now(), status));
                }
            }
        });
    }
    writes
}

/// The writes that the API server refused to the operator.
fn refused_writes(bed: &Bed) -> f64 {
    let (_, text) = run("curl", &["--silent", bed.env("OPERATOR_METRICS_URL")], "");
    let refused = text.lines().filter(|line| {
        line.starts_with("credence_kubernetes_requests_total{")
            && !line.contains("\"GET\"")
            && ["\"403\"", "\"422\""].iter().any(|code| line.contains(code))
    });
    refused.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// How often events were published about each object.
async fn events(bed: &Bed) -> BTreeMap<Place, i32> {
    let api: Api<Event> = Api::all(bed.client.clone());
    let mut counts = BTreeMap::new();
    for event in api.list(&ListParams::default()).await.unwrap().items {
        let Some(about) = event.regarding else { continue };
        let count = event.series.map_or(1, |series| series.count);
        *counts.entry((about.kind.unwrap(), about.namespace, about.name.unwrap())).or_default() += count;
    }
    counts
}

/// Changes an annotation of an object again and again.
async fn touch(bed: &Bed, (kind, namespace, name): &Place, until: Instant) {
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        let patch = json!({"metadata": {"annotations": {"touched": number.to_string()}}});
        bed.api(kind, namespace.as_deref()).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A tenant, and everything that its objects fail at.
struct Scene {
    tenant: Tenant,
    /// Begins the names of everything outside of namespaces.
    label: String,
    /// A namespace with an exhausted quota.
    poor: String,
    /// A namespace in which an admission policy refuses Secrets, and quotes them.
    denied: String,
    hostile: RefusingBroker,
}

impl Scene {
    async fn new() -> Self {
        let tenant = Tenant::new("failing").await;
        let (poor, denied) = (poor_namespace(&tenant.bed).await, tenant.bed.namespace("denied").await);
        let scene = Self { tenant, label: unique("failing"), poor, denied, hostile: RefusingBroker::start().await };
        scene.refuse_secrets().await;
        scene.create_secrets().await;
        scene
    }

    fn named(&self, what: &str) -> String {
        format!("{}-{what}", self.label)
    }

    /// Refuses Secrets in one namespace, and one route in the namespace of the edge.
    async fn refuse_secrets(&self) {
        let (bed, denied) = (&self.tenant.bed, &self.denied);
        let quoting = "'no: ' + ('tls.key' in object.data ? string(object.data['tls.key']) : 'it holds no tls.key')";
        refuse(bed, &self.named("denied"), denied, "true", quoting).await;
        let unrouted = format!(
            "has(object.metadata.annotations) && 'credence.dev/for' in object.metadata.annotations && \
             object.metadata.annotations['credence.dev/for'] == 'WebhookEndpoint/{}/unrouted'",
            self.tenant.namespace
        );
        refuse(bed, &self.named("unrouted"), "credence-edge", &unrouted, "'no'").await;
        until("the policy to be enforced", || async {
            let probe = serde_json::from_value(secret(denied, "probe", &json!({"tls.key": KEY}))).unwrap();
            let params = PostParams { dry_run: true, ..PostParams::default() };
            let answer = bed.api("Secret", Some(denied)).create(&params, &probe).await;
            let text = answer.err().map(|error| error.to_string()).unwrap_or_default();
            if text.contains(KEY) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// Secrets that are broken or in the way, the admin Secret of the hostile broker, and a ConfigMap that is in the way.
    async fn create_secrets(&self) {
        let own = self.tenant.namespace.as_str();
        let garbage = json!({"key": STANDARD.encode("no key of any kind")});
        let bundle = json!({"name": format!("{}-trust-bundle", self.named("unpublished")), "namespace": own});
        for object in [
            secret(SYSTEM, &self.named("broken"), &garbage),
            secret(SYSTEM, &self.named("taken-root-1"), &garbage),
            secret(SYSTEM, &self.named("hostile"), &self.hostile.admin),
            secret(own, "broken", &garbage),
            secret(own, "taken-mtls", &garbage),
            secret(own, "taken-webhook-keys", &garbage),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": bundle}),
        ] {
            self.tenant.bed.apply(object).await.unwrap();
        }
    }

    /// Connects to the hostile broker, and gives an identity an account there.
    async fn connect(&self) {
        let (Tenant { bed, own, namespace }, broker) = (&self.tenant, self.named("hostile"));
        bed.apply(connection(&broker, &self.hostile.address, &broker)).await.unwrap();
        bed.ready("BrokerConnection", None, &broker).await;
        own.apply(identity(namespace, "angry", &[&broker])).await.unwrap();
        bed.ready("ServiceIdentity", Some(namespace), "angry").await;
    }

    fn failing_objects(&self) -> Vec<Value> {
        let (own, poor, denied) = (self.tenant.namespace.as_str(), self.poor.as_str(), self.denied.as_str());
        let external = |what: &str, secret: &str| {
            with(self_signed(&self.named(what)), "/spec/issuer", json!({"ca": {"secretRef": {"name": secret}}}))
        };
        let selector = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": own}}});
        let on = |broker: &str, name: &str, who: &str| {
            with(policy(own, name, &format!("sandbox.{own}"), publish(who)), "/spec/broker", json!(broker))
        };
        let rotation = json!({"targets": [{"kind": "ServiceIdentity", "name": "nobody"}],
            "windows": [{"start": "03:00", "duration": "1h", "timeZone": "Nowhere/Atall"}]});
        vec![
            external("missing", "does-not-exist"),
            external("broken", &self.named("broken")),
            self_signed(&self.named("taken")),
            with(self_signed(&self.named("unpublished")), "/spec/bundle", selector),
            identity(poor, "app", &[]),
            identity(denied, "app", &[]),
            identity(own, "taken", &[]),
            with(identity(own, "lost", &[]), "/spec/trustDomain", json!("does-not-exist")),
            manifest("RotationPolicy", Some(own), "invalid", rotation),
            endpoint(poor, "hooks", None),
            endpoint(denied, "hooks", None),
            endpoint(own, "unrouted", None),
            endpoint(own, "missing", Some("does-not-exist")),
            endpoint(own, "broken", Some("broken")),
            endpoint(own, "taken", None),
            destination(poor, "acme"),
            destination(denied, "acme"),
            connection(&self.named("missing"), "localhost:1", "does-not-exist"),
            connection(&self.named("broken"), "localhost:1", &self.named("broken")),
            connection(&self.named("away"), "localhost:1", "kafka-admin"),
            on(&self.named("hostile"), "rage", "angry"),
            on(&self.named("away"), "away", "angry"),
            on("does-not-exist", "nowhere", "angry"),
            on("kafka", "nobody", "nobody"),
        ]
    }

    /// The objects that somebody touches again and again.
    fn is_touched(&self, (_, namespace, name): &Place) -> bool {
        let is_poor = namespace.as_deref() == Some(self.poor.as_str()) && name == "hooks";
        is_poor || ["rage", "taken", "missing"].contains(&name.as_str())
    }

    async fn clean_up(&self, places: &[Place]) {
        let bed = &self.tenant.bed;
        for name in ["denied", "unrouted"] {
            permit(bed, &self.named(name)).await;
        }
        for (kind, namespace, name) in places.iter().rev() {
            bed.delete(kind, namespace.as_deref(), name).await;
        }
        for name in ["broken", "taken-root-1", "hostile"] {
            bed.delete("Secret", Some(SYSTEM), &self.named(name)).await;
        }
    }
}

/// Asserts that the status of an object says what is wrong, and that it was written a few times and then not any more.
fn is_quiet(place: &Place, statuses: &[(Instant, String)], settled: Instant) {
    let (_, last) = statuses.last().unwrap_or_else(|| panic!("{place:?} has no status"));
    let last: Value = serde_json::from_str(last).unwrap();
    let ready = last["conditions"].as_array().into_iter().flatten().find(|it| it["type"] == "Ready");
    let ready = ready.unwrap_or_else(|| panic!("{place:?}: {last}"));
    let message = ready["message"].as_str().unwrap();
    assert!(ready["status"] == "False" && message.len() > 10 && message.len() < 600, "{place:?}: {last}");
    assert!(!message.contains(KEY) && !message.contains('\n'), "{place:?}: {message}");
    assert!(statuses.len() <= 6, "{place:?} had {} statuses: {statuses:#?}", statuses.len());
    assert!(statuses.iter().all(|(at, _)| *at < settled), "{place:?} goes on: {statuses:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_object_costs_a_few_writes_and_then_none() {
    let scene = Scene::new().await;
    let (bed, hostile) = (&scene.tenant.bed, &scene.hostile);
    let victim = Victim::new(bed, "failing").await;
    let writes = follow(bed);
    scene.connect().await;
    let failing = scene.failing_objects();
    let places: Vec<Place> = failing.iter().map(place).collect();
    let began = Instant::now();
    join_all(failing.iter().map(|object| async { bed.apply(object.clone()).await.unwrap() })).await;
    let touched = places.iter().filter(|place| scene.is_touched(place));
    join_all(touched.map(|place| touch(bed, place, began + SETTLED))).await;
    tokio::time::sleep_until((began + SETTLED).into()).await;
    let (refused_before, asked_before) = (refused_writes(bed), hostile.asked());
    tokio::time::sleep(QUIET).await;
    let refused = refused_writes(bed) - refused_before;

    let published = events(bed).await;
    for place in &places {
        let statuses = writes.lock().unwrap().get(place).cloned().unwrap_or_default();
        is_quiet(place, &statuses, began + SETTLED);
        let count = published.get(place).copied().unwrap_or_default();
        assert!(count <= 3, "{count} events about {place:?}");
    }
    // Seven of these objects are refused something by the API server.
    assert!(refused <= 25.0, "{refused} writes were refused in {} s", QUIET.as_secs());
    assert!(
        asked_before <= 6 && hostile.asked() <= 10,
        "the broker was asked {asked_before}, {} times",
        hostile.asked()
    );
    let log = std::fs::read_to_string(format!("{}/logs/operator.log", bed.env("BED_DIR"))).unwrap();
    assert!(!log.contains(KEY), "the log repeats a private key");
    assert!(log.contains("Kafka refused a request") && !log.contains(&"x".repeat(500)), "foreign texts are cut");

    // What was refused is tried at once when its spec changes.
    let quotas: Api<ResourceQuota> = Api::namespaced(bed.client.clone(), &scene.poor);
    quotas.delete("small", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let patch = json!({"spec": {"limits": {"perSecond": 77}}});
    patch_as(bed, "WebhookEndpoint", Some(&scene.poor), "hooks", &patch).await;
    bed.ready("WebhookEndpoint", Some(&scene.poor), "hooks").await;
    scene.clean_up(&places).await;
    victim.is_well(bed).await;
}

//! Webhooks whose target is a Kubernetes object: what is created, with which rights, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use crate::bed::{Bed, manifest, run, until};
use crate::hooks::{Sender, signing_key};
use crate::webhook::audit;

pub const ACCOUNT: &str = "hooks";

fn endpoint(namespace: &str, name: &str, template: Value) -> Value {
    let spec = json!({
        "path": format!("/{namespace}/{name}"),
        "verification": {"standardWebhooks": {}},
        "target": {"object": {"serviceAccountName": ACCOUNT, "template": template, "attempts": 1}},
    });
    manifest("WebhookEndpoint", Some(namespace), name, spec)
}

pub fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {"made": "here"}}, "data": data})
}

fn job(arguments: Value) -> Value {
    let container = json!({"name": "main", "image": "example.com/worker:1", "args": arguments});
    let pod = json!({"restartPolicy": "Never", "containers": [container]});
    json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"suspend": true, "template": {"spec": pod}}})
}

/// Creates a Role and its binding, and waits until the API server enforces them.
async fn grant(bed: &Bed, namespace: &str, name: &str, rules: Value, subject: Value, allows: &[&str]) {
    let group = "rbac.authorization.k8s.io";
    let metadata = json!({"name": name, "namespace": namespace});
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": format!("{group}/v1"),
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [subject],
    });
    bed.apply(role).await.unwrap();
    bed.apply(binding).await.unwrap();
    let user = format!(
        "system:serviceaccount:{}:{}",
        subject["namespace"].as_str().unwrap(),
        subject["name"].as_str().unwrap()
    );
    let ask =
        ["--kubeconfig", bed.env("KUBECONFIG"), "auth", "can-i", "create", "--namespace", namespace, "--as", &user];
    let arguments: Vec<&str> = ask.iter().chain(allows).copied().collect();
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    until("a granted right to take effect", || async {
        let (ok, output) = run(&kubectl, &arguments, "");
        if ok { Ok(()) } else { Err(output) }
    })
    .await;
}

/// Grants the edge the right to act as the account, as `docs/kinds/webhookendpoint.md` describes.
pub async fn allow_edge_to_impersonate(bed: &Bed, namespace: &str) {
    let rule = json!({
        "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [ACCOUNT], "verbs": ["create"],
    });
    let edge = json!({"kind": "ServiceAccount", "name": "credence-edge", "namespace": "credence-edge"});
    grant(
        bed,
        namespace,
        "credence-edge-hooks",
        json!([rule]),
        edge,
        &["serviceaccounts/hooks", "--subresource=token"],
    )
    .await;
}

/// A namespace with an account that may create ConfigMaps, and Jobs if the test needs them.
pub async fn namespace(bed: &Bed, test: &str, jobs: bool) -> String {
    let namespace = bed.namespace(test).await;
    let metadata = json!({"name": ACCOUNT, "namespace": namespace});
    bed.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).await.unwrap();
    let mut rules = vec![json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]})];
    if jobs {
        rules.push(json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}));
    }
    let account = json!({"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace});
    grant(bed, &namespace, "hooks", json!(rules), account, &["configmaps"]).await;
    namespace
}

/// Creates an endpoint, waits until it is served, and returns its key.
async fn serve(bed: &Bed, namespace: &str, name: &str, template: Value) -> String {
    bed.apply(endpoint(namespace, name, template)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(namespace), name).await;
    signing_key(bed, namespace, name).await
}

/// The objects that were created for an endpoint.
pub async fn created(bed: &Bed, kind: &str, namespace: &str, name: &str) -> Vec<DynamicObject> {
    let all = bed.api(kind, Some(namespace)).list(&ListParams::default()).await.unwrap();
    let beginning = format!("{name}-");
    all.items.into_iter().filter(|it| it.metadata.name.as_ref().unwrap().starts_with(&beginning)).collect()
}

fn reasons(bed: &Bed, namespace: &str, name: &str) -> Vec<String> {
    let lines = audit(bed, &format!("{namespace}/{name}"));
    lines.iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_creates_one_object_of_any_kind() {
    let bed = Bed::open().await;
    let namespace = namespace(&bed, "objects", true).await;
    allow_edge_to_impersonate(&bed, &namespace).await;
    let sender = Sender::new(&bed, bed.env("EDGE_URL"));
    let body = "{\"say\": \"it's \\\"$(delivery.id)\\\"\"},\n  \"metadata\": {\"namespace\": \"default\"}\r\n$(delivery.endpoint) é";
    let values = ["id", "body", "bodyBase64", "endpoint"].map(|it| format!("$(delivery.{it})"));
    let wanted = ["msg_1".to_owned(), body.to_owned(), STANDARD.encode(body), String::new()];
    let data = json!({"id": values[0], "body": values[1], "base64": values[2], "endpoint": values[3], "plain": "$(x)"});
    for (kind, name, template) in [("Job", "work", job(json!(values))), ("ConfigMap", "note", config_map(data))] {
        let key = serve(&bed, &namespace, name, template).await;
        let path = format!("/{namespace}/{name}");
        assert_eq!(sender.send(&path, &key, "msg_1", body).await.unwrap(), 200, "{kind}");
        assert_eq!(sender.send(&path, &key, "msg_1", body).await.unwrap(), 409, "{kind}: a replay");
        let objects = created(&bed, kind, &namespace, name).await;
        assert_eq!(objects.len(), 1, "{kind}");
        let (metadata, object) = (&objects[0].metadata, &objects[0].data);
        assert_eq!(metadata.name.as_ref().unwrap().len(), name.len() + 21);
        let endpoint = format!("{namespace}/{name}");
        let annotations = metadata.annotations.as_ref().unwrap();
        let lines = audit(&bed, &endpoint);
        assert_eq!(annotations["credence.dev/delivery-id"], "msg_1");
        assert_eq!(annotations["credence.dev/endpoint"], endpoint);
        assert_eq!(annotations["credence.dev/body-sha256"], lines[0]["bodySHA256"].as_str().unwrap());
        assert_eq!(lines[0]["target"], format!("{}.{namespace}", kind.to_lowercase()));
        let [id, text, encoded, _] = &wanted;
        if kind == "Job" {
            let arguments = &object["spec"]["template"]["spec"]["containers"][0]["args"];
            assert_eq!(
                arguments,
                &json!([id, text, encoded, endpoint]),
                "each variable is one string with the unchanged text"
            );
        } else {
            assert_eq!(metadata.labels.as_ref().unwrap()["made"], "here");
            let data = json!({"id": id, "body": text, "base64": encoded, "endpoint": endpoint, "plain": "$(x)"});
            assert_eq!(object["data"], data);
        }
        assert_eq!(sender.send(&path, &key, "msg_2", body).await.unwrap(), 200);
        assert_eq!(created(&bed, kind, &namespace, name).await.len(), 2, "each delivery creates its own {kind}");
    }
    let managers = created(&bed, "ConfigMap", &namespace, "note").await[0].metadata.managed_fields.clone().unwrap();
    assert_eq!(managers[0].manager.as_deref(), Some("credence-edge"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_already_exists_counts_as_delivered() {
    let bed = Bed::open().await;
    let namespace = namespace(&bed, "there", false).await;
    allow_edge_to_impersonate(&bed, &namespace).await;
    let sender = Sender::new(&bed, bed.env("EDGE_URL"));
    let template = config_map(json!({"id": "$(delivery.id)"}));
    let key = serve(&bed, &namespace, "note", template.clone()).await;
    let path = format!("/{namespace}/note");
    assert_eq!(sender.send(&path, &key, "msg_1", "{}").await.unwrap(), 200);
    // Another store, which has no history of the delivery.
    let mut other = endpoint(&namespace, "note", template);
    other["spec"]["replay"] = json!({"store": "Redis"});
    bed.apply(other).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "note").await;
    assert_eq!(sender.send(&path, &key, "msg_1", "{}").await.unwrap(), 200);
    assert_eq!(created(&bed, "ConfigMap", &namespace, "note").await.len(), 1);
    let lines = audit(&bed, &format!("{namespace}/note"));
    assert_eq!((&lines[0]["targetStatus"], &lines[1]["targetStatus"]), (&json!(201), &json!(409)));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_is_created_without_granted_rights() {
    let bed = Bed::open().await;
    let namespace = namespace(&bed, "rights", false).await;
    let sender = Sender::new(&bed, bed.env("EDGE_URL"));
    let note = serve(&bed, &namespace, "note", config_map(json!({"id": "$(delivery.id)"}))).await;
    let path = format!("/{namespace}/note");
    assert_eq!(sender.send(&path, &note, "msg_1", "{}").await.unwrap(), 502, "the edge may not act as the account");
    assert_eq!(reasons(&bed, &namespace, "note"), ["TargetForbidden"]);
    assert!(created(&bed, "ConfigMap", &namespace, "note").await.is_empty());
    let log = std::fs::read_to_string(format!("{}/logs/edge.log", bed.env("BED_DIR"))).unwrap();
    let expected = format!(
        "kubectl create role credence-edge-hooks --namespace {namespace} --verb=create \
         --resource=serviceaccounts/token --resource-name=hooks && kubectl create rolebinding credence-edge-hooks \
         --namespace {namespace} --role=credence-edge-hooks --serviceaccount=credence-edge:credence-edge"
    );
    assert!(log.contains(&expected), "the log does not contain: {expected}");

    allow_edge_to_impersonate(&bed, &namespace).await;
    assert_eq!(
        sender.send(&path, &note, "msg_1", "{}").await.unwrap(),
        200,
        "the same delivery, after the right was granted"
    );
    let work = serve(&bed, &namespace, "work", job(json!(["$(delivery.body)"]))).await;
    let path = format!("/{namespace}/work");
    assert_eq!(sender.send(&path, &work, "msg_1", "{}").await.unwrap(), 502, "the account may not create Jobs");
    assert_eq!(reasons(&bed, &namespace, "work"), ["TargetForbidden"]);
    assert!(created(&bed, "Job", &namespace, "work").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_fits_no_object_is_refused() {
    let bed = Bed::open().await;
    let namespace = namespace(&bed, "holds", false).await;
    allow_edge_to_impersonate(&bed, &namespace).await;
    let sender = Sender::new(&bed, bed.env("EDGE_URL"));
    let key = serve(&bed, &namespace, "note", config_map(json!({"body": "$(delivery.body)"}))).await;
    let path = format!("/{namespace}/note");
    assert_eq!(sender.send(&path, &key, "msg_1", &"x".repeat((32 << 10) + 1)).await.unwrap(), 413);
    assert_eq!(sender.send(&path, &key, "msg_2", &"x".repeat(32 << 10)).await.unwrap(), 200);
    let secret = serve(&bed, &namespace, "odd", config_map(json!({"body": {"not": "$(delivery.body)"}}))).await;
    let path = format!("/{namespace}/odd");
    assert_eq!(sender.send(&path, &secret, "msg_1", "hidden-in-the-body").await.unwrap(), 502);
    assert_eq!(reasons(&bed, &namespace, "odd"), ["TargetRefused"]);
    let absent = json!({"apiVersion": "example.com/v1", "kind": "Nothing", "spec": {}});
    let key = serve(&bed, &namespace, "absent", absent).await;
    assert_eq!(sender.send(&format!("/{namespace}/absent"), &key, "msg_1", "{}").await.unwrap(), 502);
    assert_eq!(reasons(&bed, &namespace, "absent"), ["TargetRefused"]);
    let log = std::fs::read_to_string(format!("{}/logs/edge.log", bed.env("BED_DIR"))).unwrap();
    assert!(!log.contains("hidden-in-the-body"), "the log contains no bodies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_with_forbidden_fields_is_not_served() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("templates").await;
    let with = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    for (name, template) in [
        ("elsewhere", with(json!({"namespace": "default"}))),
        ("named", with(json!({"name": "mine"}))),
        ("owned", with(json!({"ownerReferences": []}))),
        ("unknown", config_map(json!({"x": "$(delivery.secret)"}))),
        ("partial", config_map(json!({"x": "id $(delivery.id)"}))),
        ("key", config_map(json!({"$(delivery.id)": "x"}))),
        ("long", config_map(json!({"x": "x".repeat(64 << 10)}))),
    ] {
        bed.apply(endpoint(&namespace, name, template)).await.unwrap();
        bed.condition("WebhookEndpoint", Some(&namespace), name, "Accepted", ("False", "InvalidSpec")).await;
    }
    let mut both = endpoint(&namespace, "both", config_map(json!({})));
    both["spec"]["target"]["service"] = json!({"name": "x", "port": 80});
    assert!(bed.apply(both).await.unwrap_err().contains("exactly one of service, object and kafka"));
    let nothing = bed.apply(endpoint(&namespace, "nothing", json!({"kind": "ConfigMap"}))).await;
    assert!(nothing.unwrap_err().contains("apiVersion"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deeply_nested_template_does_not_affect_others() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("deep").await;
    let deep = (0..200).fold(json!("x"), |inner, _| json!({"a": inner}));
    let object = endpoint(&namespace, "deep", config_map(deep));
    // Not parsed by this client: the response of the API server is as deeply nested as the request.
    let kubectl = format!("{}/kubectl", bed.env("BED_BIN"));
    let arguments = ["--kubeconfig", bed.env("KUBECONFIG"), "create", "--filename", "-"];
    let (ok, output) = run(&kubectl, &arguments, &object.to_string());
    assert!(ok, "{output}");
    bed.apply(endpoint(&namespace, "other", config_map(json!({"id": "$(delivery.id)"})))).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "other").await;
    let ask = |verb: &str, more: &[&str]| {
        let deep = ["--kubeconfig", bed.env("KUBECONFIG"), verb, "webhookendpoint", "deep", "--namespace", &namespace];
        run(&kubectl, &[&deep[..], more].concat(), "")
    };
    let (ok, output) = ask("wait", &["--for", "condition=Accepted=False", "--timeout", "30s"]);
    assert!(ok, "{output}");
    let (_, output) = ask("get", &["--output", "jsonpath={.status.conditions[?(@.type=='Accepted')].message}"]);
    assert!(output.contains("deeper than 32 levels"), "{output}");
    let (ok, output) = ask("delete", &["--timeout", "30s"]);
    assert!(ok, "{output}");
}

//! Nothing that is read from a Secret is repeated anywhere: in no status, event, log, metric or audit line, in no encoding.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::bed::{Bed, manifest, run, unique, until};
use crate::tenant::{Tenant, Victim};

const SYSTEM: &str = "credence-system";
const EDGE: &str = "credence-edge";
const TOKENS: &str = "credence-tokens";

/// A text that stands in a Secret and nowhere else.
struct Marker(String);

impl Marker {
    fn new() -> Self {
        Self((0..32).map(|_| fastrand::alphanumeric()).collect())
    }

    fn text(&self) -> &str {
        &self.0
    }

    /// What the marker looks like in a text that repeats it, in whatever encoding.
    fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for form in [self.0.clone(), STANDARD.encode(&self.0)] {
            // A part is enough: the beginning may be cut off, and another byte may stand before it.
            let bytes = &form.as_bytes()[6..18];
            let all = |show: fn(&u8) -> String, between: &str| bytes.iter().map(show).collect::<Vec<_>>().join(between);
            traces.push(String::from_utf8(bytes.to_vec()).unwrap());
            for between in ["", " ", ":"] {
                traces.push(all(|byte| format!("{byte:02x}"), between));
                traces.push(all(|byte| format!("{byte:02X}"), between));
            }
            traces.push(all(|byte| format!("%{byte:02X}"), ""));
            traces.push(all(|byte| format!("\\u{byte:04x}"), ""));
            traces.extend([", ", ",", " "].map(|between| all(u8::to_string, between)));
        }
        for shift in 0..3 {
            // Without the ends, which depend on what stands beside it.
            let encoded = STANDARD.encode([vec![0; shift], self.0.as_bytes().to_vec()].concat());
            traces.push(encoded[8..32].to_owned());
        }
        traces
    }

    /// What is no PEM, or no certificate and no key, each in another way.
    fn broken_pem(&self) -> Vec<Vec<u8>> {
        let (text, encoded) = (&self.0, STANDARD.encode(&self.0));
        let pem = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
        let mut forms: Vec<Vec<u8>> = vec![
            pem("PRIVATE KEY", &encoded).replace('\n', "").into(),
            pem("CERTIFICATE", &encoded).replace('\n', "").into(),
            format!("-----BEGIN {text}\n").into(),
            format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n").into(),
            format!("\u{feff}{}", pem("CERTIFICATE", &encoded)).into(),
            [b"\xff\xfe\x00", text.as_bytes()].concat(),
        ];
        for kind in ["CERTIFICATE", "PRIVATE KEY", "PUBLIC KEY"] {
            forms.push(pem(kind, &encoded).into());
            forms.push(pem(kind, &format!("{text}*")).into());
        }
        forms
    }

    /// What is no key of a webhook, or none that its scheme takes.
    fn broken_keys(&self) -> Vec<Vec<u8>> {
        let (text, encoded) = (&self.0, STANDARD.encode(&self.0));
        vec![
            text.clone().into(),
            format!("whsec_{text}!").into(),
            format!("whpk_{text}").into(),
            format!("whsk_{encoded}").into(),
            [b"\xff\xfe\x00", text.as_bytes()].concat(),
            [b"\x30\x22\x04\x20", text.as_bytes()].concat(),
        ]
    }

    /// What is no JSON, or JSON of another shape than that of keys and routes.
    fn broken_json(&self) -> Vec<Vec<u8>> {
        let text = &self.0;
        let shapes = [
            json!(text),
            json!([text]),
            json!({"keys": text}),
            json!({"keys": [text]}),
            json!({"keys": [{"kty": text}]}),
            json!({"keys": [{"kty": "oct", "k": text}]}),
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": text, "y": text}]}),
            json!({"keys": [{"kty": {"is": text}}]}),
            json!({"endpoint": {"namespace": text}, "digest": 7}),
            json!({"spec": {text: text}}),
        ];
        let cut = format!("{{\"keys\": [{{\"kty\": \"{text}");
        shapes.iter().map(ToString::to_string).chain([cut, format!("\u{feff}\"{text}\"")]).map(Into::into).collect()
    }
}

fn secret(namespace: &str, name: &str, labels: Value, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "data": data,
        "metadata": {"name": name, "namespace": namespace, "labels": labels}})
}

/// The entries of a Secret, encoded as in a manifest.
async fn entries(bed: &Bed, namespace: &str, name: &str) -> Value {
    json!(bed.secret(namespace, name).await.unwrap().data.unwrap())
}

/// An object that refers to a Secret, both not applied yet.
type Pair = (Value, Value);

/// Trust domains and broker connections whose Secrets have one broken entry each.
async fn of_the_platform(bed: &Bed, marker: &Marker, label: &str) -> Vec<Pair> {
    let authority = entries(bed, SYSTEM, "demo-intermediate-1").await;
    let admin = entries(bed, SYSTEM, "kafka-admin").await;
    let mut pairs = Vec::new();
    for (number, form) in marker.broken_pem().iter().enumerate() {
        for entry in ["tls.crt", "tls.key", "ca.crt"] {
            let broken = |valid: &Value| {
                let mut data = valid.clone();
                data[entry] = json!(STANDARD.encode(form));
                data
            };
            let name = format!("{label}-{number}-{}", entry.replace('.', "-"));
            let spec = json!({"domain": format!("{name}.example"), "environment": "development",
                "issuer": {"ca": {"secretRef": {"name": format!("{name}-ca")}}}});
            pairs.push((
                secret(SYSTEM, &format!("{name}-ca"), json!({}), broken(&authority)),
                manifest("TrustDomain", None, &name, spec),
            ));
            let spec = json!({"environment": "development", "access": [], "kafka": {
                "bootstrapServers": [bed.env("KAFKA_BOOTSTRAP")], "clientAuthentication": "MutualTLS",
                "adminSecretRef": {"name": format!("{name}-admin")}}});
            pairs.push((
                secret(SYSTEM, &format!("{name}-admin"), json!({}), broken(&admin)),
                manifest("BrokerConnection", None, &name, spec),
            ));
        }
    }
    pairs
}

/// Trust domains with an identity provider whose key set is broken.
fn of_providers(marker: &Marker, label: &str) -> Vec<Pair> {
    let pair = |(number, form): (usize, Vec<u8>)| {
        let name = format!("{label}-{number}-users");
        let provider = json!({"name": "customers", "issuer": "https://login.example", "namespaceSelector": {},
            "keys": {"secretRef": {"name": name}}});
        let spec = json!({"domain": format!("{name}.example"), "environment": "development", "issuer": {"selfSigned": {}},
            "tokens": {"issuer": format!("https://{name}.example")}, "subjectIssuers": [provider]});
        let data = json!({"jwks.json": STANDARD.encode(form)});
        (secret(SYSTEM, &name, json!({}), data), manifest("TrustDomain", None, &name, spec))
    };
    marker.broken_json().into_iter().enumerate().map(pair).collect()
}

/// Documents of the token issuer that are broken.
fn of_the_token_issuer(marker: &Marker, label: &str) -> Vec<Value> {
    let broken = |(component, prefix, entry): (&str, &str, &str)| {
        let labels = json!({"app.kubernetes.io/managed-by": "credence", "credence.dev/component": component});
        let document = |(number, form): (usize, Vec<u8>)| {
            let data = json!({entry: STANDARD.encode(form)});
            secret(TOKENS, &format!("{prefix}.{label}-{number}"), labels.clone(), data)
        };
        marker.broken_json().into_iter().enumerate().map(document).collect::<Vec<_>>()
    };
    let kinds = [("token-issuer", "issuer", "issuer.json"), ("token-calls", "calls", "calls.json")];
    kinds.into_iter().flat_map(broken).collect()
}

/// Webhooks whose Secrets are broken: their own keys, those of an issuer of tokens, and those that a Service shares.
fn of_the_tenant(namespace: &str, marker: &Marker) -> Vec<Pair> {
    let labels = json!({"credence.dev/webhook-keys": "true"});
    let keys = |name: &str| json!({"external": {"secretRef": {"name": name}}});
    let target = json!({"service": {"name": "target", "port": 80}});
    let mut pairs = Vec::new();
    let mut add = |kind: &str, name: &str, data: Value, mut spec: Value| {
        spec["path"] = json!(format!("/{namespace}/{name}"));
        pairs.push((secret(namespace, name, labels.clone(), data), manifest(kind, Some(namespace), name, spec)));
    };
    let jwt = json!({"issuer": "https://issuer.example", "audience": "shop", "subject": "app"});
    let signatures = json!({"httpMessageSignatures": {"algorithm": "EcdsaP256Sha256", "components": []}});
    for (scheme, verification, forms) in [
        ("standard", json!({"standardWebhooks": {}}), marker.broken_keys()),
        ("gitlab", json!({"gitlab": {}}), marker.broken_keys()),
        ("signatures", signatures, marker.broken_pem()),
        ("jwt", json!({"jwt": jwt}), marker.broken_json()),
    ] {
        for (number, form) in forms.iter().enumerate() {
            let name = format!("{scheme}-{number}");
            let spec = json!({"verification": verification, "keys": keys(&name), "target": target,
                "externalURL": "https://hooks.example/", "source": {"cidrs": ["127.0.0.0/8"]}});
            add("WebhookEndpoint", &name, json!({"key": STANDARD.encode(form)}), spec);
        }
    }
    for (number, form) in marker.broken_json().iter().enumerate() {
        let name = format!("source-{number}");
        let source = json!({"jwt": {"issuer": "https://issuer.example", "audience": "shop", "subjects": ["app"],
            "secretRef": {"name": name}}});
        let spec = json!({"verification": {"github": {}}, "source": source, "target": target});
        add("WebhookEndpoint", &name, json!({"key": STANDARD.encode(form)}), spec);
    }
    for (number, form) in marker.broken_keys().iter().enumerate() {
        let name = format!("assertion-{number}");
        let shared = json!({"service": {"name": "target", "port": 80,
            "assertion": {"hs256": {"secretRef": {"name": name}}}}});
        let spec = json!({"verification": {"github": {}}, "target": shared});
        add("WebhookEndpoint", &name, json!({"key": STANDARD.encode(form)}), spec);
        let name = format!("signs-{number}");
        let spec = json!({"signing": {"standardWebhooks": {}}, "keys": keys(&name),
            "source": {"clientCertificate": {"spiffeIDs": ["spiffe://demo.credence.example/ns/shop/sa/orders"]}},
            "target": {"url": "https://hooks.example/"}});
        add("WebhookDestination", &name, json!({"key": STANDARD.encode(form)}), spec);
    }
    let times = json!({"key": STANDARD.encode("0123456789abcdef"), "key.notAfter": STANDARD.encode(marker.text())});
    let spec = json!({"verification": {"github": {}}, "keys": keys("times"), "target": target});
    add("WebhookEndpoint", "times", times, spec);
    pairs
}

async fn apply_all(bed: &Bed, pairs: &[Pair]) {
    for some in pairs.chunks(16) {
        join_all(some.iter().map(|(secret, _)| async { bed.apply(secret.clone()).await.unwrap() })).await;
        join_all(some.iter().map(|(_, object)| async { bed.apply(object.clone()).await.unwrap() })).await;
    }
}

/// Waits until every object has a condition `Ready`, and returns their statuses.
async fn statuses(bed: &Bed, pairs: &[Pair]) -> Vec<String> {
    let mut found = Vec::new();
    for (_, object) in pairs {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let (kind, name) = (text("/kind").unwrap(), text("/metadata/name").unwrap());
        let status = until(&format!("the status of {kind} {name}"), || async {
            let object = bed.get(kind, text("/metadata/namespace"), name).await.unwrap();
            let status = object.data["status"].clone();
            let is_concluded = status["conditions"].as_array().into_iter().flatten().any(|it| it["type"] == "Ready");
            if is_concluded { Ok(status) } else { Err(status.to_string()) }
        })
        .await;
        found.push(format!("{kind} {name}: {status}"));
    }
    found
}

/// Everything that operator, edge and token issuer say to anybody.
async fn everything_said(bed: &Bed) -> Vec<(String, String)> {
    let mut said = Vec::new();
    for log in ["operator.log", "edge.log", "edge-audit.log", "tokens.log", "tokens-audit.log"] {
        let path = format!("{}/logs/{log}", bed.env("BED_DIR"));
        said.push((log.to_owned(), String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()));
    }
    for url in ["OPERATOR_METRICS_URL", "EDGE_METRICS_URL", "TOKENS_METRICS_URL"].map(|name| bed.env(name)) {
        for url in [url.to_owned(), url.replace("/metrics", "/readyz?verbose")] {
            let (ok, text) = run("curl", &["--silent", "--show-error", &url], "");
            assert!(ok, "{url}: {text}");
            said.push((url, text));
        }
    }
    let events: kube::Api<k8s_openapi::api::events::v1::Event> = kube::Api::all(bed.client.clone());
    let events = events.list(&ListParams::default()).await.unwrap();
    said.push(("events".to_owned(), serde_json::to_string(&events.items).unwrap()));
    said
}

/// Breaks the credential that a webhook writes to a topic with, the certificate of the edge, and a route.
/// Returns the routes.
async fn break_what_is_written(tenant: &Tenant, marker: &Marker) -> Vec<Value> {
    let forms = marker.broken_pem();
    let bed = &tenant.bed;
    let params = PatchParams { field_manager: Some("credence".into()), ..PatchParams::default() };
    let namespace = Some(tenant.namespace.as_str());
    for (number, form) in forms.iter().take(3).enumerate() {
        let data = json!({"data": {"tls.key": STANDARD.encode(form)}});
        tenant.own.api("Secret", namespace).patch("app.kafka", &params, &Patch::Merge(data)).await.unwrap();
        let patch = json!({"spec": {"limits": {"perSecond": 300 + number}}});
        tenant.patch("WebhookEndpoint", "tok", patch).await;
        until("the edited endpoint to be looked at", || async {
            let object = bed.get("WebhookEndpoint", namespace, "tok").await.unwrap();
            let seen = object.data["status"]["observedGeneration"].as_i64();
            if seen == object.metadata.generation { Ok(()) } else { Err(object.data["status"].to_string()) }
        })
        .await;
    }
    for entry in ["tls.crt", "tls.key"] {
        let data = json!({"data": {entry: STANDARD.encode(&forms[0])}});
        let api = bed.api("Secret", Some(EDGE));
        api.patch("edge-mtls", &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
        until("the certificate of the edge to be restored", || async {
            let found = bed.secret(EDGE, "edge-mtls").await.unwrap().data.unwrap();
            if found[entry].0 == forms[0] { Err("it is broken".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    let labels = json!({"app.kubernetes.io/managed-by": "credence", "credence.dev/component": "webhook-route"});
    let route = |(number, form): (usize, &Vec<u8>)| {
        let name = format!("route-{}-{number}", tenant.namespace);
        secret(EDGE, &name, labels.clone(), json!({"route.json": STANDARD.encode(form)}))
    };
    let routes: Vec<Value> = marker.broken_json().iter().enumerate().map(route).collect();
    join_all(routes.iter().map(|route| async { bed.apply(route.clone()).await.unwrap() })).await;
    routes
}

/// Runs the program with something broken in its environment, and returns what it says.
fn started_with(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_credence"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn kubeconfig_with(user: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}]})
}

/// Deletes objects that may be gone already.
async fn delete_all(bed: &Bed, objects: impl Iterator<Item = &Value>) {
    let objects: Vec<&Value> = objects.collect();
    for some in objects.chunks(16) {
        join_all(some.iter().map(|object| async {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let api = bed.api(text("/kind").unwrap(), text("/metadata/namespace"));
            let _ = api.delete(text("/metadata/name").unwrap(), &DeleteParams::default()).await;
        }))
        .await;
    }
}

#[test]
fn a_trace_is_found_in_every_encoding() {
    let marker = Marker::new();
    let (text, encoded) = (marker.text().as_bytes(), STANDARD.encode(marker.text()));
    let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
    for told in [
        format!("invalid type: string \"{}\"", marker.text()),
        format!("{text:?}"),
        format!("MissingSectionEnd {{ end_marker: {:?} }}", encoded.as_bytes()),
        encoded.clone(),
        STANDARD.encode(format!("a{}", marker.text())),
        STANDARD.encode(format!("ab{} and more", marker.text())),
        hex.to_uppercase(),
        hex,
    ] {
        assert!(marker.traces().iter().any(|trace| told.contains(trace)), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_read_from_a_secret_is_repeated() {
    let tenant = Tenant::new("quoting").await;
    let victim = Victim::new(&tenant.bed, "quoting").await;
    let (bed, marker, label) = (&tenant.bed, Marker::new(), unique("quoting"));
    tenant.identity("app").await;
    let target = json!({"kafka": {"broker": "kafka", "serviceIdentity": "app", "topic": "sandbox.quoting"}});
    let spec = json!({"path": format!("/{}/tok", tenant.namespace), "verification": {"github": {}}, "target": target});
    tenant.own.apply(manifest("WebhookEndpoint", Some(&tenant.namespace), "tok", spec)).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&tenant.namespace), "tok").await;

    let platform = of_the_platform(bed, &marker, &label).await;
    let (providers, own) = (of_providers(&marker, &label), of_the_tenant(&tenant.namespace, &marker));
    apply_all(bed, &platform).await;
    apply_all(bed, &providers).await;
    apply_all(&tenant.own, &own).await;
    let mut written = break_what_is_written(&tenant, &marker).await;
    let documents = of_the_token_issuer(&marker, &label);
    join_all(documents.iter().map(|document| async { bed.apply(document.clone()).await.unwrap() })).await;
    written.extend(documents);
    let mut said: Vec<(String, String)> = Vec::new();
    for status in statuses(bed, &providers).await {
        assert!(
            status.contains("SubjectIssuersReady") && status.contains("KeysInvalid"),
            "the Secret was read: {status}"
        );
        said.push(("status".to_owned(), status));
    }
    for status in statuses(bed, &platform).await.into_iter().chain(statuses(bed, &own).await) {
        said.push(("status".to_owned(), status));
    }
    let about = |what: &str| said.iter().filter(|(_, text)| text.contains(what)).count();
    assert_eq!(about("IssuerSecretInvalid"), platform.len() / 2, "the Secrets were read");
    assert_eq!(about("AdminSecretInvalid"), platform.len() / 2, "the Secrets were read");
    assert!(about("KeysInvalid") > own.len() / 2, "the Secrets were read");

    let forms = marker.broken_pem();
    let pair =
        json!({"client-key-data": STANDARD.encode(&forms[0]), "client-certificate-data": STANDARD.encode(&forms[1])});
    for user in [json!({"token": [marker.text()]}), pair] {
        let kubeconfig = format!("{}/{label}.yaml", bed.env("BED_DIR"));
        std::fs::write(&kubeconfig, kubeconfig_with(&user).to_string()).unwrap();
        let text = started_with(&["controller", "--listen", "127.0.0.1:0"], &[("KUBECONFIG", &kubeconfig)]);
        said.push(("a broken kubeconfig".to_owned(), text));
    }
    let redis = format!("http://user:{}@host:port", marker.text());
    let environment = [("KUBECONFIG", bed.env("OPERATOR_KUBECONFIG")), ("CREDENCE_REDIS_URL", &redis)];
    said.push(("a broken URL of Redis".to_owned(), started_with(&["edge"], &environment)));
    said.extend(everything_said(bed).await);
    let logged = said.iter().find(|(what, _)| what == "edge.log").unwrap();
    assert!(logged.1.contains("invalid certificate; not using it") && logged.1.contains("invalid route document"));

    let logged = said.iter().find(|(what, _)| what == "tokens.log").unwrap();
    assert!(logged.1.contains("invalid document; not using it"));

    let traces = marker.traces();
    for (what, text) in &said {
        for line in text.lines() {
            let found = traces.iter().find(|trace| line.contains(trace.as_str()));
            assert_eq!(found, None, "{what} repeats a Secret: {line}");
        }
    }
    delete_all(bed, platform.iter().chain(&providers).chain(&own).flat_map(|(secret, object)| [object, secret])).await;
    delete_all(bed, written.iter()).await;
    victim.is_well(bed).await;
}

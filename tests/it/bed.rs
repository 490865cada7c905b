//! Access to the bed: a client, namespaces, manifests, and third-party tools such as Kafka's and OpenSSL.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

/// How long [`until`] waits.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The kinds of Credence.
pub const KINDS: [&str; 7] = [
    "TrustDomain",
    "ServiceIdentity",
    "RotationPolicy",
    "BrokerConnection",
    "TopicPolicy",
    "WebhookEndpoint",
    "WebhookDestination",
];

/// Held by a test that stops the operator or needs it undisturbed: one test at a time.
pub static OPERATOR: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub struct Bed {
    pub client: Client,
    env: BTreeMap<String, String>,
}

impl Bed {
    pub async fn open() -> Self {
        let folder = std::env::var("CREDENCE_BED").expect("CREDENCE_BED is not set: run the tests with `make test`");
        Self::open_at(&folder).await
    }

    /// Opens another bed than the one of the other tests.
    pub async fn open_at(folder: &str) -> Self {
        // The first test of the process installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let text = std::fs::read_to_string(Path::new(folder).join("env")).expect("the bed is not running");
        let env: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect();
        let kubeconfig = kube::config::Kubeconfig::read_from(&env["KUBECONFIG"]).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
            .await
            .unwrap();
        Self { client: Client::try_from(config).unwrap(), env }
    }

    /// The same bed with the rights of a token.
    #[allow(dead_code, reason = "for the tests of tenants")]
    pub async fn with_token(&self, token: String) -> Self {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.env["KUBECONFIG"]).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..kube::config::AuthInfo::default() };
        Self { client: Client::try_from(config).unwrap(), env: self.env.clone() }
    }

    pub fn env(&self, name: &str) -> &str {
        &self.env[name]
    }

    /// Starts or stops a part of the bed.
    pub fn part(&self, verb: &str, part: &str) {
        let command = format!("{}/tests/bed/bed", env!("CARGO_MANIFEST_DIR"));
        let (ok, output) = run(&command, &[verb, part, "--dir", self.env("BED_DIR")], "");
        assert!(ok, "{output}");
    }

    /// Creates a namespace for one test.
    pub async fn namespace(&self, test: &str) -> String {
        let name = unique(test);
        self.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await.unwrap();
        name
    }

    pub fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = match kind {
            "Secret" | "ConfigMap" | "Namespace" | "ServiceAccount" | "Service" => ("", "v1"),
            "Role" | "RoleBinding" => ("rbac.authorization.k8s.io", "v1"),
            "Job" => ("batch", "v1"),
            "Lease" => ("coordination.k8s.io", "v1"),
            _ => ("credence.dev", "v1alpha1"),
        };
        let plural = match kind {
            "ServiceIdentity" => "serviceidentities".to_owned(),
            "TopicPolicy" | "RotationPolicy" => format!("{}ies", kind.to_lowercase().trim_end_matches('y')),
            _ => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Applies a manifest as `kubectl apply --server-side` does, strictly.
    pub async fn apply(&self, manifest: Value) -> Result<DynamicObject, String> {
        let kind = manifest["kind"].as_str().unwrap().to_owned();
        let namespace = manifest["metadata"]["namespace"].as_str().map(ToOwned::to_owned);
        let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        let mut params = PatchParams::apply("tests").force();
        params.field_validation = Some(kube::api::ValidationDirective::Strict);
        self.api(&kind, namespace.as_deref())
            .patch(&name, &params, &Patch::Apply(&manifest))
            .await
            .map_err(|error| error.to_string())
    }

    pub async fn delete(&self, kind: &str, namespace: Option<&str>, name: &str) {
        self.api(kind, namespace).delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn get(&self, kind: &str, namespace: Option<&str>, name: &str) -> Option<DynamicObject> {
        self.api(kind, namespace).get_opt(name).await.unwrap()
    }

    pub async fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
        Api::<Secret>::namespaced(self.client.clone(), namespace).get_opt(name).await.unwrap()
    }

    /// Waits until the condition has this value and reason, and returns the object.
    pub async fn condition(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        type_: &str,
        wanted: (&str, &str),
    ) -> DynamicObject {
        let what = format!("{kind} {name}: {type_}={} {}", wanted.0, wanted.1);
        until(&what, || async {
            let object = self.get(kind, namespace, name).await.ok_or_else(|| "it does not exist".to_owned())?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().find(|condition| condition["type"] == type_);
            let current = found.is_some_and(|condition| {
                condition["status"] == wanted.0
                    && condition["reason"] == wanted.1
                    && condition["observedGeneration"].as_i64() == object.metadata.generation
            });
            if current { Ok(object) } else { Err(format!("{:#}", object.data["status"])) }
        })
        .await
    }

    pub async fn ready(&self, kind: &str, namespace: Option<&str>, name: &str) -> DynamicObject {
        self.condition(kind, namespace, name, "Ready", ("True", "Ready")).await
    }

    /// Writes the entries of a Secret into files, as a Pod would find them.
    pub async fn mount(&self, namespace: &str, secret: &str) -> PathBuf {
        let folder = PathBuf::from(&self.env["BED_DIR"]).join("mounts").join(unique(secret));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = self.secret(namespace, secret).await.unwrap();
        for (name, value) in secret.data.unwrap() {
            std::fs::write(folder.join(name), value.0).unwrap();
        }
        folder
    }

    /// Runs one of Kafka's own tools as the administrator of the bed.
    pub fn kafka(&self, tool: &str, arguments: &[&str]) -> String {
        let connect =
            ["--bootstrap-server", self.env("KAFKA_BOOTSTRAP"), "--command-config", self.env("KAFKA_ADMIN_CONFIG")];
        let all: Vec<&str> = connect.into_iter().chain(arguments.iter().copied()).collect();
        let (ok, output) = run(&self.kafka_tool(tool), &all, "");
        assert!(ok, "{tool} {arguments:?}: {output}");
        output
    }

    pub fn kafka_tool(&self, tool: &str) -> String {
        format!("{}/bin/{tool}", self.env("KAFKA_HOME"))
    }

    /// The ACLs of a principal, as `kafka-acls` lists them below its heading.
    pub fn acls(&self, principal: &str) -> String {
        let listed = self.kafka("kafka-acls", &["--list", "--principal", principal]);
        listed.lines().filter(|line| !line.starts_with("ACLs for principal")).collect::<Vec<_>>().join("\n")
    }

    /// Publishes one record with Kafka's console producer and the `client.properties` of a Secret.
    pub fn publish(&self, mount: &Path, topic: &str) -> (bool, String) {
        let properties = mount.join("client.properties");
        let properties = properties.to_str().unwrap();
        let server = self.env("KAFKA_BOOTSTRAP");
        let arguments = [
            "--bootstrap-server",
            server,
            "--topic",
            topic,
            "--command-config",
            properties,
            "--command-property",
            "max.block.ms=8000",
            "--command-property",
            "delivery.timeout.ms=8000",
            "--command-property",
            "request.timeout.ms=4000",
            "--command-property",
            "linger.ms=0",
        ];
        let (_, output) = run(&self.kafka_tool("kafka-console-producer"), &arguments, "hello\n");
        (!output.contains("ERROR") && !output.contains("Exception"), output)
    }
}

/// A name that is unique among all tests.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id() % 10_000)
}

/// Calls `look` until it returns `Ok`. After the timeout it panics with the last error.
pub async fn until<T, F: Future<Output = Result<T, String>>>(what: &str, look: impl Fn() -> F) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(start.elapsed() < TIMEOUT, "timed out waiting for {what}; last result: {last}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a program, and returns whether it succeeded and its output.
pub fn run(program: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // A program may end without reading its input; the test judges its exit code and output.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub fn openssl(arguments: &[&str]) -> String {
    let (ok, output) = run("openssl", arguments, "");
    assert!(ok, "openssl {arguments:?}: {output}");
    output
}

/// A manifest of one of Credence's kinds.
pub fn manifest(kind: &str, namespace: Option<&str>, name: &str, spec: Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "credence.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    if let Some(namespace) = namespace {
        manifest["metadata"]["namespace"] = namespace.into();
    }
    manifest
}

pub fn identity(namespace: &str, name: &str, brokers: &[&str]) -> Value {
    let brokers: Vec<Value> = brokers.iter().map(|name| json!({"name": name})).collect();
    let spec = json!({"trustDomain": "demo", "authentication": {"mtls": {}}, "brokers": brokers});
    manifest("ServiceIdentity", Some(namespace), name, spec)
}

pub fn policy(namespace: &str, name: &str, topic: &str, grants: Value) -> Value {
    let spec = json!({"broker": "kafka", "environment": "development", "topic": {"name": topic}, "grants": grants});
    manifest("TopicPolicy", Some(namespace), name, spec)
}

/// A connection of the platform to the Kafka at an address, with topics below `sandbox.` for every namespace.
pub fn broker_connection(name: &str, server: &str) -> Value {
    let spec = json!({
        "environment": "development",
        "kafka": {
            "bootstrapServers": [server],
            "adminSecretRef": {"name": "kafka-admin"},
            "clientAuthentication": "MutualTLS",
        },
        "access": [{"namespaceSelector": {}, "topicPrefixes": ["sandbox."]}],
    });
    manifest("BrokerConnection", None, name, spec)
}

pub fn self_signed(name: &str) -> Value {
    let spec = json!({
        "domain": format!("{name}.example"),
        "environment": "development",
        "issuer": {"selfSigned": {}},
    });
    manifest("TrustDomain", None, name, spec)
}

/// Changes one field of a manifest, given as a JSON pointer.
pub fn with(mut manifest: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    manifest.pointer_mut(parent).unwrap()[field] = value;
    manifest
}

/// Labels a namespace.
pub async fn label(bed: &Bed, namespace: &str, labels: Value) {
    let patch = json!({"metadata": {"labels": labels}});
    let api: Api<Namespace> = Api::all(bed.client.clone());
    api.patch(namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

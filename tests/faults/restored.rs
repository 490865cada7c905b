//! A second bed, which goes on from what another version left behind, and sees the time at which it was left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use kube::api::ListParams;
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::bed::{Bed, KINDS, run};

/// The kinds of which every object is looked at.
fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().chain(["Secret", "ConfigMap"])
}

pub struct Restored {
    pub bed: Bed,
    folder: String,
    /// Where its logs are kept when the test fails.
    kept: String,
    sender: Sender,
}

/// Sends to the edge of a bed that was restored, at the time of that bed.
#[derive(Clone)]
pub struct Sender {
    /// What makes a program see that time: `env`, and variables for it.
    clock: Vec<String>,
    /// How far that time is from the time of this machine, in seconds.
    offset: i64,
    edge: String,
    authority: String,
    signers: String,
    node_signers: String,
}

impl Sender {
    /// What time it is in the bed, in seconds since 1970.
    fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.offset
    }

    /// Sends a delivery with curl, and returns the status of the answer.
    pub fn send(&self, path: &str, options: &[&str], headers: &[String], body: &str) -> u16 {
        let url = format!("{}{path}", self.edge);
        let mut all: Vec<&str> = self.clock.iter().skip(1).map(String::as_str).collect();
        all.extend(["curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        all.extend(["--cacert", &self.authority, "--data-binary", "@-"]);
        all.extend(options);
        all.extend(headers.iter().flat_map(|header| ["--header", header]));
        all.push(&url);
        let (ok, text) = run("env", &all, body);
        assert!(ok, "{text}");
        text.trim().parse().unwrap()
    }

    /// The headers of a delivery that is signed now after Standard Webhooks, by the Rust library.
    pub fn sign(&self, key: &str, id: &str, body: &str) -> Vec<String> {
        let at = self.now();
        let signature = Webhook::new(key).unwrap().sign(id, at, body.as_bytes()).unwrap();
        vec![format!("webhook-id: {id}"), format!("webhook-timestamp: {at}"), format!("webhook-signature: {signature}")]
    }

    /// The headers of a delivery that is signed now by the library of its senders.
    pub fn sign_as(&self, scheme: &str, key: &str, id: &str, body: &str) -> Vec<String> {
        let (signers, at) = (&self.signers, self.now().to_string());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/signers");
        let (ok, text) = if scheme == "github" {
            let (libraries, script) = (format!("NODE_SIGNERS={}", self.node_signers), format!("{folder}/sign.mjs"));
            run("env", &[&libraries, "node", &script, scheme, key, id, &at], body)
        } else {
            let (python, script) = (format!("{signers}/bin/python3"), format!("{folder}/sign.py"));
            run(&python, &[&script, scheme, key, id, &at, "https://hooks.example.com/in"], body)
        };
        assert!(ok, "{scheme}: {text}");
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// The headers of a delivery that is signed now after the scheme of the endpoint `mac`.
    pub fn sign_mac(&self, key: &str, id: &str, body: &str) -> Vec<String> {
        let at = self.now();
        let key = hmac::Key::new(hmac::HMAC_SHA512, key.as_bytes());
        let mac = hmac::sign(&key, format!("v0:{id}:{at}:{body}").as_bytes());
        let digits: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        vec![format!("x-id: {id}"), format!("x-time: {at}"), format!("x-mac: v0={digits}")]
    }
}

impl Restored {
    /// Restores a snapshot, with the program of another bed. Neither the operator nor the edge runs yet.
    pub async fn from(snapshot: &str, beside: &Bed) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let folder = format!("{root}/target/restored-bed");
        let kept = format!("{}/logs/restored", beside.env("BED_DIR"));
        let (snapshot, values) = (format!("{root}/{snapshot}"), format!("{root}/tests/bed/test-values.yaml"));
        let binary = format!("CREDENCE_BIN={}/bin/credence", beside.env("BED_DIR"));
        let values = format!("CREDENCE_VALUES={values}");
        let command = format!("{root}/tests/bed/bed");
        let restore = [&binary, &values, "CLUSTER=embedded", &command, "restore", &snapshot, "--dir", &folder];
        let (ok, output) = run("env", &restore, "");
        assert!(ok, "{output}");
        let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap().trim().to_owned();
        let clock: Vec<String> = read("clock.env").lines().map(ToOwned::to_owned).collect();
        let offset = clock.iter().find_map(|line| line.strip_prefix("FAKETIME=")).unwrap().parse().unwrap();
        let bed = Bed::open_at(&folder).await;
        let sender = Sender {
            clock,
            offset,
            edge: bed.env("EDGE_URL").to_owned(),
            authority: bed.env("EDGE_CA").to_owned(),
            signers: bed.env("SIGNERS").to_owned(),
            node_signers: bed.env("NODE_SIGNERS").to_owned(),
        };
        Self { bed, folder, kept, sender }
    }

    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// A file that lies in the snapshot beside what the bed is made of.
    pub fn file(&self, path: &str) -> String {
        format!("{}/{path}", self.folder)
    }

    /// Installs the chart of this version.
    pub fn upgrade(&self) {
        let root = env!("CARGO_MANIFEST_DIR");
        let values = format!("CREDENCE_VALUES={root}/tests/faults/upgrade-values.yaml");
        let command = format!("{root}/tests/bed/bed");
        let (ok, output) = run("env", &[&values, &command, "upgrade", "--dir", &self.folder], "");
        assert!(ok, "{output}");
    }

    /// Every object that the upgrade is about, by kind, namespace and name.
    pub async fn objects(&self) -> BTreeMap<String, Seen> {
        let mut objects = BTreeMap::new();
        for kind in kinds() {
            for object in self.bed.api(kind, None).list(&ListParams::default()).await.unwrap().items {
                let metadata = object.metadata;
                let namespace = metadata.namespace.unwrap_or_default();
                let name = metadata.name.unwrap();
                // The one is Kubernetes' own, the other the edge's.
                let is_report = kind == "ConfigMap" && namespace == "credence-edge" && name == "bed-edge";
                if namespace.starts_with("kube-") || name == "kube-root-ca.crt" || is_report {
                    continue;
                }
                let mut data = object.data;
                let status = data.as_object_mut().unwrap().remove("status").unwrap_or_default();
                let (uid, version) = (metadata.uid.unwrap(), metadata.resource_version.unwrap());
                let generation = metadata.generation.unwrap_or_default();
                let labels = (metadata.labels, metadata.annotations, metadata.finalizers);
                let fixed = format!("{uid} {generation} {labels:?} {data}");
                objects.insert(format!("{kind} {namespace}/{name}"), Seen { fixed, status, version });
            }
        }
        objects
    }

    /// What the operator has written since the bed was restored, by object, without its lease.
    pub fn writes(&self) -> BTreeMap<String, usize> {
        let log = std::fs::read_to_string(format!("{}/logs/audit.log", self.folder)).unwrap();
        let mut writes = BTreeMap::new();
        // The last line may be half written.
        for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let part = |name: &str| line["objectRef"][name].as_str().unwrap_or_default().to_owned();
            let (resource, namespace) = (part("resource"), part("namespace"));
            if resource != "leases" {
                let kind = kinds().find(|kind| plural(kind) == resource).unwrap_or(&resource);
                *writes.entry(format!("{kind} {namespace}/{}", part("name"))).or_insert(0) += 1;
            }
        }
        writes
    }

    /// Waits until the operator has written nothing for some seconds.
    pub async fn settled(&self) -> BTreeMap<String, usize> {
        let began = Instant::now();
        let mut before = self.writes();
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let writes = self.writes();
            if writes == before {
                return writes;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it does not come to rest: {writes:#?}");
            before = writes;
        }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if std::thread::panicking() {
            run("cp", &["-rT", &format!("{}/logs", self.folder), &self.kept], "");
        }
        run(&format!("{}/tests/bed/bed", env!("CARGO_MANIFEST_DIR")), &["down", "--dir", &self.folder], "");
    }
}

/// An object as somebody sees it who watches it.
#[derive(Debug, PartialEq)]
pub struct Seen {
    /// What nobody but its owner changes: its spec, or its data, and most of its metadata.
    pub fixed: String,
    /// How it stands.
    pub status: Value,
    /// Its version: another one is a write.
    pub version: String,
}

impl Seen {
    /// Whether only messages of its status changed: then the status was written once more.
    pub fn is_reworded(&self, before: &Self) -> bool {
        let verdict = |seen: &Self| {
            let mut status = seen.status.clone();
            remove_words(&mut status);
            status
        };
        self.fixed == before.fixed && self.status != before.status && verdict(self) == verdict(before)
    }
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

fn remove_words(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !["message", "protection"].contains(&name.as_str()));
            fields.values_mut().for_each(remove_words);
        }
        Value::Array(values) => values.iter_mut().for_each(remove_words),
        _ => {}
    }
}

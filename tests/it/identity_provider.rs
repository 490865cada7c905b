//! An identity provider of somebody else, in a process of its own, and what the platform says of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::bed::{Bed, openssl, run, unique, until};
use crate::calls::Services;

/// A provider that runs until it is dropped.
pub struct Provider {
    process: Child,
    pub url: String,
    folder: PathBuf,
    scripts: PathBuf,
}

impl Provider {
    /// Starts one on a port, a free one for 0. Its keys are those of this name.
    pub fn start(bed: &Bed, port: u16, keys: &str) -> Self {
        let folder = PathBuf::from(bed.env("BED_DIR")).join("mounts").join(unique("provider"));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"];
        // It is its own root, and no authority: a server that is one is refused.
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        let key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let files = ["-keyout", &file("tls.key"), "-out", &file("tls.crt")];
        openssl(&[&key[..], &subject, &leaf, &files].concat());
        Self::run(folder, bed.env("PROVIDER").into(), port, keys)
    }

    fn run(folder: PathBuf, scripts: PathBuf, port: u16, keys: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(scripts.join("provider.mjs")).args(["--port", &port.to_string()]);
        for (option, file) in [("--cert", "tls.crt"), ("--key", "tls.key"), ("--keys", keys)] {
            command.arg(option).arg(folder.join(file));
        }
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { process, url, folder, scripts }
    }

    /// Starts it again at the same address, with other keys.
    pub fn restart(self, keys: &str) -> Self {
        let (folder, scripts, url) = (self.folder.clone(), self.scripts.clone(), self.url.clone());
        drop(self);
        Self::run(folder, scripts, url.rsplit_once(':').unwrap().1.parse().unwrap(), keys)
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("tls.crt")
    }

    /// Logs a user in, for a service: the answer of the provider, with an access token for the service.
    pub fn login(&self, user: &str, tenant: &Value, service: &str) -> Value {
        let tenant = if tenant.is_null() { String::new() } else { tenant.to_string() };
        let (script, ca) = (self.scripts.join("login.mjs"), self.ca());
        let arguments = [script.to_str().unwrap(), &self.url, ca.to_str().unwrap(), user, &tenant, service];
        let (ok, output) = run("node", &arguments, "");
        assert!(ok, "{output}");
        serde_json::from_str(&output).unwrap()
    }

    /// Its public keys, as it publishes them.
    pub fn key_set(&self) -> String {
        let url = format!("{}/jwks", self.url);
        let (ok, output) = run("curl", &["--silent", "--fail", "--cacert", self.ca().to_str().unwrap(), &url], "");
        assert!(ok, "{output}");
        output
    }

    /// A subject issuer whose keys are fetched, for every namespace.
    pub fn by_url(&self, audiences: Value) -> Value {
        let ca = std::fs::read_to_string(self.ca()).unwrap();
        let keys = json!({"url": format!("{}/jwks", self.url), "caBundle": ca});
        let mut issuer = self.subject_issuer(json!({}), keys);
        issuer["audiences"] = audiences;
        issuer
    }

    /// A subject issuer whose keys are in a Secret.
    pub fn by_secret(&self, secret: &str, selector: Value) -> Value {
        self.subject_issuer(selector, json!({"secretRef": {"name": secret}}))
    }

    fn subject_issuer(&self, selector: Value, keys: Value) -> Value {
        json!({
            "name": unique("idp"), "issuer": self.url, "namespaceSelector": selector, "keys": keys,
            "tenant": {"claim": "org", "pattern": "[a-z]+"},
        })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A subject issuer of the trust domain `demo`, beside those of other tests.
pub struct SubjectIssuer {
    pub name: String,
}

impl SubjectIssuer {
    pub async fn add(bed: &Bed, issuer: &Value) -> Self {
        let added = Self { name: issuer["name"].as_str().unwrap().to_owned() };
        added.apply(bed, json!([issuer])).await;
        until("the provider to be usable", || async {
            let status = added.status(bed).await;
            if status["usable"] == true && status["message"].is_null() { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        added
    }

    pub async fn remove(&self, bed: &Bed) {
        self.apply(bed, json!([])).await;
    }

    /// Each test is a field manager of its own, so that none takes away another's.
    async fn apply(&self, bed: &Bed, issuers: Value) {
        let domain = json!({
            "apiVersion": "credence.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": "demo"},
            "spec": {"subjectIssuers": issuers},
        });
        let params = PatchParams::apply(&self.name);
        bed.api("TrustDomain", None).patch("demo", &params, &Patch::Apply(&domain)).await.unwrap();
    }

    /// What the status of the trust domain says about it.
    pub async fn status(&self, bed: &Bed) -> Value {
        let all = bed.get("TrustDomain", None, "demo").await.unwrap().data["status"]["subjectIssuers"].clone();
        all.as_array().into_iter().flatten().find(|it| it["name"] == self.name.as_str()).cloned().unwrap_or_default()
    }

    /// Waits until a service may act for its users.
    pub async fn known_to(&self, bed: &Bed, namespace: &str, name: &str) {
        until("the identity to be able to act for the users", || async {
            let status = bed.get("ServiceIdentity", Some(namespace), name).await.unwrap().data["status"].clone();
            let issuers = status["calls"]["subjectIssuers"].as_array().cloned().unwrap_or_default();
            if issuers.contains(&json!(self.name)) { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
}

/// Asks for a token for whom `subject_token` names.
pub fn exchange(
    services: &Services,
    folder: &Path,
    subject_token: &Value,
    audience: &str,
    scope: &str,
) -> (u16, Value) {
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", subject_token.as_str().unwrap()),
        ("audience", audience),
        ("scope", scope),
    ];
    services.ask(Some(folder), &form)
}

//! Services that call each other with access tokens, and what asks for these.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, manifest, run, until, with};

const SERVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/services/python/service.py");

pub fn id(namespace: &str, name: &str) -> String {
    format!("spiffe://demo.credence.example/ns/{namespace}/sa/{name}")
}

/// An identity that calls others, and lets others call it: `(namespace, name, scopes)` of each.
pub fn calling(namespace: &str, name: &str, callees: &[Rule], callers: &[Rule]) -> Value {
    let rules = |rules: &[Rule]| -> Value {
        let rule = |(namespace, name, scopes): &Rule| json!({"identity": {"namespace": namespace, "name": name}, "scopes": scopes});
        rules.iter().map(rule).collect()
    };
    let calling =
        with(identity(namespace, name, &[]), "/spec/authentication/signedToken", json!({"callees": rules(callees)}));
    with(calling, "/spec/allowedCallers", rules(callers))
}

pub type Rule<'a> = (&'a str, &'a str, &'a [&'a str]);

/// Two services, of which the first may call the second, and what a Pod of each finds.
pub struct Services {
    pub bed: Bed,
    pub shop: String,
    pub pay: String,
    pub orders: PathBuf,
    pub payments: PathBuf,
}

impl Services {
    pub async fn new(test: &str) -> Self {
        let bed = Bed::open().await;
        let (shop, pay) = (bed.namespace(&format!("{test}-shop")).await, bed.namespace(&format!("{test}-pay")).await);
        let to_pay: [Rule; 1] = [(&pay, "payments", &["pay:read", "pay:write", "pay:audit"])];
        let from_shop: [Rule; 1] = [(&shop, "orders", &["pay:read", "pay:write"])];
        bed.apply(calling(&shop, "orders", &to_pay, &[])).await.unwrap();
        bed.apply(calling(&pay, "payments", &[], &from_shop)).await.unwrap();
        agreed(&bed, &shop, "orders").await;
        bed.ready("ServiceIdentity", Some(&pay), "payments").await;
        let orders = bed.mount(&shop, "orders-mtls").await;
        let payments = bed.mount(&pay, "payments-mtls").await;
        Self { bed, shop, pay, orders, payments }
    }

    pub fn audience(&self) -> String {
        id(&self.pay, "payments")
    }

    /// A request for a token with the certificate in a folder, by curl: the status and the answer.
    pub fn ask(&self, folder: Option<&Path>, form: &[(&str, &str)]) -> (u16, Value) {
        let mut arguments: Vec<String> = Vec::new();
        for (name, value) in form {
            arguments.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        let (status, text) = self.curl(folder, "/token", &arguments);
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))
    }

    pub fn curl(&self, folder: Option<&Path>, path: &str, more: &[String]) -> (u16, String) {
        self.try_curl(folder, path, more).unwrap_or_else(|| panic!("no answer to {path}"))
    }

    /// The status and the answer; `None` when there is none.
    pub fn try_curl(&self, folder: Option<&Path>, path: &str, more: &[String]) -> Option<(u16, String)> {
        let url = format!("{}{path}", self.bed.env("TOKENS_ISSUER"));
        let mut arguments =
            ["--silent", "--show-error", "--cacert", self.bed.env("EDGE_CA"), "--write-out", "\n%{http_code}", &url]
                .map(ToOwned::to_owned)
                .to_vec();
        if let Some(folder) = folder {
            let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
            arguments.extend(["--cert".to_owned(), file("tls.crt"), "--key".to_owned(), file("tls.key")]);
        }
        arguments.extend_from_slice(more);
        let (ok, output) = run("curl", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "");
        let (text, status) = output.rsplit_once('\n').filter(|_| ok)?;
        Some((status.parse().unwrap(), text.to_owned()))
    }

    pub fn token(&self, scope: &str) -> String {
        let audience = self.audience();
        let form = [("grant_type", "client_credentials"), ("audience", audience.as_str()), ("scope", scope)];
        let (status, answer) = self.ask(Some(&self.orders), &form);
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// The audit lines of the issuer about a client, once the last one has this reason: lines are written beside the answers.
    pub async fn audited(&self, client: &str, last: &str) -> Vec<Value> {
        until("the audit lines", || async {
            let text = std::fs::read_to_string(self.bed.env("TOKENS_AUDIT_LOG")).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
            let lines: Vec<Value> = lines.filter(|line| line["client"] == client).collect();
            let reason = lines.last().map(|line| line["reason"].clone()).unwrap_or_default();
            if reason == last { Ok(lines) } else { Err(format!("{last}: {reason}")) }
        })
        .await
    }

    pub fn example(&self, folder: &Path, own: &str) -> Command {
        self.example_in(Language::Python, folder, own)
    }

    pub fn example_in(&self, language: Language, folder: &Path, own: &str) -> Command {
        let mut command = match language {
            Language::Python => Command::new(format!("{}/bin/python3", self.bed.env("SIGNERS"))),
            Language::Go => Command::new(self.bed.env("GO_SERVICE")),
            Language::Java => Command::new("java"),
            Language::JavaScript => Command::new("node"),
            Language::Rust => Command::new(self.bed.env("RUST_SERVICE")),
        };
        match language {
            Language::Python => _ = command.arg(SERVICE),
            Language::Go | Language::Rust => {}
            Language::Java => _ = command.args(["-jar", self.bed.env("JAVA_SERVICE")]),
            Language::JavaScript => _ = command.arg(self.bed.env("JAVASCRIPT_SERVICE")),
        }
        command.env("IDENTITY", folder).env("SPIFFE_ID", own);
        command.env("ISSUER", self.bed.env("TOKENS_ISSUER")).env("ISSUER_CA", self.bed.env("EDGE_CA"));
        command
    }

    /// Calls a service as the one in a folder, with this token, or with one that it gets: what the callee answers.
    pub fn call(&self, folder: &Path, own: &str, url: &str, token: Option<&str>, scope: &str) -> String {
        self.call_in(Language::Python, folder, own, url, token, scope)
    }

    pub fn call_in(
        &self,
        language: Language,
        folder: &Path,
        own: &str,
        url: &str,
        token: Option<&str>,
        scope: &str,
    ) -> String {
        let mut command = self.example_in(language, folder, own);
        command.args(["call", url, &self.audience(), scope]).envs(token.map(|token| ("TOKEN", token)));
        let output = command.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    }
}

/// Waits until the calls of an identity are agreed on.
pub async fn agreed(bed: &Bed, namespace: &str, name: &str) {
    until("both sides to agree", || async {
        let status = bed.get("ServiceIdentity", Some(namespace), name).await.unwrap().data["status"].clone();
        let callees = status["calls"]["callees"].as_array().cloned().unwrap_or_default();
        let ready = status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Ready" && it["status"] == "True");
        let agreed = ready && !callees.is_empty() && callees.iter().all(|call| call["agreed"] == true);
        if agreed { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

/// What an example is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    Go,
    Java,
    JavaScript,
    Rust,
}

impl Language {
    pub const ALL: [Self; 5] = [Self::Python, Self::Go, Self::Java, Self::JavaScript, Self::Rust];
}

/// A service of the examples, which ends with the test.
pub struct Serving {
    process: Child,
    pub url: String,
}

impl Serving {
    pub fn start(mut command: Command) -> Self {
        let mut process = command.args(["serve", "0", "pay:read"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { process, url: format!("https://{address}/") }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The key that a token is signed with.
pub fn signed_with(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

/// A policy that asks for another key of a trust domain. Times are in whole seconds: a key of this second is from before the next.
pub fn turn(name: &str, domain: &str) -> Value {
    let next = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    let spec = json!({"targets": [{"kind": "TrustDomain", "name": domain}], "issuedBefore": next.to_string()});
    manifest("RotationPolicy", Some("credence-system"), name, spec)
}

//! Checks with third-party tools: OpenSSL for certificates, and Kafka's own tool for ACLs.

use std::collections::BTreeSet;

use crate::bed::{Bed, run};

/// A Secret with a certificate, and the expected result of its check.
pub struct Credential {
    pub secret: String,
    pub bundle: String,
    /// Whether the Secret contains the bundle, too.
    pub has_bundle: bool,
    pub expected_text: String,
}

impl Credential {
    /// Checks the Secret with OpenSSL, and describes the certificate or the failure.
    pub async fn check(&self, bed: &Bed) -> String {
        let (namespace, name) = self.secret.split_once('/').unwrap();
        let folder = bed.mount(namespace, name).await;
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (chain, bundle) = (file("tls.crt"), file("bundle.crt"));
        std::fs::write(&bundle, &self.bundle).unwrap();
        let verify = ["verify", "-x509_strict", "-CAfile", &bundle, "-untrusted", &chain, &chain];
        let (chains, verdict) = run("openssl", &verify, "");
        let show = ["-noout", "-serial", "-fingerprint", "-sha256", "-pubkey", "-ext", "subjectAltName"];
        let text = run("openssl", &[&["x509", "-in", &chain][..], &show].concat(), "").1;
        let key = run("openssl", &["pkey", "-in", &file("tls.key"), "-pubout"], "").1;
        let beside = std::fs::read_to_string(file("ca.crt")).unwrap();
        if !chains || !text.contains(&key) || (self.has_bundle && beside != self.bundle) {
            return format!("{verdict}{key}{text}{beside}");
        }
        let after = |sign: &str| text.lines().find_map(|line| Some(line.split_once(sign)?.1)).unwrap_or_default();
        let names = text.lines().find(|line| line.contains("URI:")).unwrap_or_default();
        certificate(after("serial="), after("Fingerprint="), names.trim().split(", ").map(ToOwned::to_owned).collect())
    }
}

/// Describes a certificate.
pub fn certificate(number: &str, fingerprint: &str, mut names: Vec<String>) -> String {
    let hex = |text: &str| text.replace(':', "").to_lowercase().trim_start_matches('0').to_owned();
    names.sort();
    format!("number {}, fingerprint {}, {names:?}", hex(number), hex(fingerprint))
}

/// An ACL in the format of Kafka's own tool.
pub fn right(principal: &str, operation: &str, resource: &str, name: &str, pattern: &str) -> String {
    format!(
        "principal={principal}, host=*, operation={operation}, permissionType=ALLOW on resourceType={resource}, \
         name={name}, patternType={pattern}"
    )
}

/// Adds or removes a foreign ACL for an identity of a namespace.
pub fn foreign_acl(bed: &Bed, change: &[&str], namespace: &str) -> String {
    let principal = format!("User:CN=i0,OU={namespace},O=demo.credence.example");
    let what = ["--topic", "sandbox.theirs", "--operation", "Read", "--allow-principal", &principal];
    bed.kafka("kafka-acls", &[change, &what].concat());
    right(&principal, "READ", "TOPIC", "sandbox.theirs", "LITERAL")
}

/// The ACLs of the broker for identities of the namespaces.
pub fn rights(bed: &Bed, namespaces: &[String]) -> BTreeSet<String> {
    let inner = |line: &str| Some(line.split_once('(')?.1.rsplit_once(')')?.0.to_owned());
    let (mut resource, mut rights) = (String::new(), BTreeSet::new());
    for line in bed.kafka("kafka-acls", &["--list"]).lines() {
        match inner(line) {
            Some(found) if line.starts_with("Current ACLs") => resource = found,
            Some(right) => _ = rights.insert(format!("{right} on {resource}")),
            None => {}
        }
    }
    rights.retain(|right| namespaces.iter().any(|namespace| right.contains(&format!(",OU={namespace},"))));
    rights
}

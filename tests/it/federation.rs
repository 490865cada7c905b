//! The bundle endpoint, asked as another trust domain asks it: with the SPIFFE project's client in Go.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::bed::{Bed, run, self_signed, unique, until, with};

/// The identity of the token issuer, and a host that its own certificate names and no serving certificate does.
const ENDPOINT: &str = "spiffe://demo.credence.example/ns/credence-tokens/sa/credence-tokens";
const HOST: &str = "credence-tokens.credence-tokens.svc";

/// Somebody who federates with the trust domains of the bed.
struct Party {
    bed: Bed,
    folder: PathBuf,
}

impl Party {
    async fn new() -> Self {
        let bed = Bed::open().await;
        let folder = PathBuf::from(bed.env("BED_DIR")).join("mounts").join(unique("federation"));
        std::fs::create_dir_all(&folder).unwrap();
        Self { bed, folder }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The authorities of a trust domain, as the ConfigMap in the namespace of the token issuer has them.
    async fn bundle(&self, trust_domain: &str) -> String {
        let name = format!("{trust_domain}-trust-bundle");
        let bundle = self.bed.get("ConfigMap", Some("credence-tokens"), &name).await.unwrap();
        bundle.data["data"]["ca.crt"].as_str().unwrap().to_owned()
    }

    /// What the client fetches, or why it does not.
    fn fetch(&self, arguments: &[&str]) -> Result<Value, String> {
        let (ok, output) = run(self.bed.env("FEDERATION"), arguments, "");
        if ok { Ok(serde_json::from_str(&output).unwrap()) } else { Err(output) }
    }

    fn refused(&self, arguments: &[&str], why: &str) {
        let error = self.fetch(arguments).unwrap_err();
        assert!(error.contains("fetch failed: ") && error.contains(why), "{error}");
    }
}

/// Digests of certificates in PEM.
fn digests(pem: &str) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|it| hex(digest(&SHA256, &it.unwrap()).as_ref())).collect()
}

/// Whether a bundle is the one of a trust domain, with exactly these authorities: its sequence number.
fn sequence(bundle: &Value, trust_domain: &str, authorities: &str) -> u64 {
    let sequence = bundle["sequence"].as_u64().unwrap();
    let expected = json!({
        "trustDomain": trust_domain, "sequence": sequence, "refreshHint": 300, "authorities": digests(authorities),
    });
    assert_eq!(*bundle, expected);
    assert!(sequence > 0 && !digests(authorities).is_empty(), "{bundle}");
    sequence
}

#[tokio::test]
async fn a_bundle_is_fetched_from_a_server_of_the_web() {
    let party = Party::new().await;
    let authorities = party.bundle("demo").await;
    let url = format!("{}/bundle.json", party.bed.env("TOKENS_ISSUER"));
    let fetched = party.fetch(&["web", &url, party.bed.env("EDGE_CA"), "demo.credence.example"]).unwrap();
    sequence(&fetched, "demo.credence.example", &authorities);
    // The certificate for this host is of an authority outside of the trust domain, and no SVID.
    let known = party.file("demo.crt", &authorities);
    party.refused(&["web", &url, &known, "demo.credence.example"], "unknown authority");
    party.refused(&["spiffe", &url, &known, ENDPOINT, "demo.credence.example"], "could not get leaf SPIFFE ID");
}

#[tokio::test]
async fn a_bundle_is_fetched_from_a_server_with_an_svid() {
    let party = Party::new().await;
    let bed = &party.bed;
    // A host has one issuer. The name is always the same, so that what a failed test has left is replaced.
    let (name, domain) = ("federated", "federated.example");
    let port = bed.env("TOKENS_ISSUER").rsplit_once(':').unwrap().1;
    let issuer = format!("https://{HOST}:{port}");
    let url = format!("{issuer}/bundle.json");
    let federated = |roots: &[&str]| {
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "credence-tokens"}});
        let bundle = json!({"namespaceSelector": selector, "additionalRoots": roots});
        with(with(self_signed(name), "/spec/tokens", json!({"issuer": issuer})), "/spec/bundle", bundle)
    };
    bed.apply(federated(&[])).await.unwrap();
    bed.ready("TrustDomain", None, name).await;
    let (known, authorities) = (party.file("demo.crt", &party.bundle("demo").await), party.bundle(name).await);
    let fetched =
        until("the issuer to be served", || async { party.fetch(&["spiffe", &url, &known, ENDPOINT, domain]) }).await;
    let first = sequence(&fetched, domain, &authorities);
    let other = party.file("other.crt", &authorities);
    party.refused(&["spiffe", &url, &other, ENDPOINT, domain], "unknown authority");
    party.refused(&["spiffe", &url, &known, &ENDPOINT.replace("tokens", "edge"), domain], "unexpected ID");
    // Whoever watches the bundle notices the next root, which has a larger number.
    let mut watching = Command::new(bed.env("FEDERATION"));
    watching.args(["watch", &url, &known, ENDPOINT, domain]).stdout(Stdio::piped());
    let mut watching = watching.spawn().unwrap();
    let mut updates = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut update = || serde_json::from_str::<Value>(&updates.next().unwrap().unwrap()).unwrap();
    assert_eq!(update(), fetched);
    bed.apply(federated(&[&Authority::new("next root").pem()])).await.unwrap();
    bed.ready("TrustDomain", None, name).await;
    let now = party.bundle(name).await;
    assert_eq!(digests(&now).len(), digests(&authorities).len() + 1);
    assert!(sequence(&update(), domain, &now) > first);
    watching.kill().unwrap();
    watching.wait().unwrap();
    bed.delete("TrustDomain", None, name).await;
}

//! What callers from outside are shown: certificates that they trust, by the name that they ask for.

use kube::api::DeleteParams;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use time::Duration;

use crate::authority::Authority;
use crate::bed::{Bed, openssl, run, unique, until};
use crate::hooks::{Target, endpoint, now, signing_key};
use crate::webhook::sign;

/// The serving certificates of the edge, as named in `test-values.yaml`. Only this test creates them.
const SECRETS: [&str; 2] = ["serving-ecdsa", "serving-rsa"];
const EDGE: &str = "credence-edge";

/// A Secret as cert-manager writes it: without authorities, and with the key in the older form of its algorithm.
fn secret(name: &str, certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": EDGE},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    })
}

/// A key as OpenSSL makes it, in the older form: PKCS#1 or SEC1.
fn key(algorithm: &[&str], convert: &str) -> (KeyPair, String) {
    let pem = openssl(&[&["genpkey"], algorithm].concat());
    let (ok, older) = run("openssl", &[convert, "-traditional"], &pem);
    let older = if ok { older } else { run("openssl", &[convert], &pem).1 };
    let begin = older.find("-----BEGIN").unwrap();
    (KeyPair::from_pem(&pem).unwrap(), older[begin..].to_owned())
}

struct Scene {
    bed: Bed,
    namespace: String,
    key: String,
}

impl Scene {
    /// Sends a signed delivery to a name of the edge, by a client that trusts one authority only. Returns the status, or what the client
    /// says about the connection.
    fn call(&self, name: &str, authority: &str) -> Result<u16, String> {
        let file = format!("{}/{}.pem", self.bed.env("BED_DIR"), unique("authority"));
        std::fs::write(&file, authority).unwrap();
        let (_, port) = self.bed.env("EDGE_URL").rsplit_once(':').unwrap();
        let (there, url) = (format!("::127.0.0.1:{port}"), format!("https://{name}:{port}/{}/public", self.namespace));
        let mut arguments = vec!["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"];
        arguments.extend(["--connect-to", &there, "--cacert", &file, "--data-binary", "@-"]);
        let headers = sign(&self.bed, "standard-webhooks", &self.key, &unique("msg"), now(), "{}");
        for header in &headers {
            arguments.extend(["--header", header]);
        }
        arguments.push(&url);
        let (ok, text) = run("curl", &arguments, "{}");
        if ok { Ok(text.trim().parse().unwrap()) } else { Err(text) }
    }

    async fn is_shown(&self, name: &str, authority: &str) {
        until(&format!("{name} to be shown"), || async {
            match self.call(name, authority) {
                Ok(200) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_shown_the_certificate_of_the_name_they_ask_for() {
    let bed = Bed::open().await;
    let namespace = bed.namespace("public").await;
    let target = Target::start().await;
    bed.apply(endpoint(&namespace, "public", &target, json!({"standardWebhooks": {}}))).await.unwrap();
    bed.ready("WebhookEndpoint", Some(&namespace), "public").await;
    let key_text = signing_key(&bed, &namespace, "public").await;
    let scene = Scene { bed, namespace, key: key_text };
    let bed = &scene.bed;
    let own = std::fs::read_to_string(bed.env("EDGE_CA")).unwrap();
    let (first, second) = (Authority::new("public web"), Authority::new("public web"));
    let (name, wildcard) = ("hooks.public.example", "a.wild.public.example");
    let certify = |authority: &Authority, name: &str, key: &KeyPair| {
        authority.certify(CertificateParams::new([name.to_owned()]).unwrap(), Duration::hours(1), key)
    };
    assert_eq!(scene.call("localhost", &own), Ok(200), "Secrets that are missing disturb nobody");

    let (ecdsa, sec1) = key(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "ec");
    assert!(sec1.contains("EC PRIVATE KEY"), "{}", sec1.lines().next().unwrap());
    bed.apply(secret(SECRETS[0], &certify(&first, name, &ecdsa), &sec1)).await.unwrap();
    scene.is_shown(name, &first.pem()).await;
    assert_eq!(scene.call("localhost", &own), Ok(200));

    bed.apply(secret(SECRETS[0], &certify(&second, name, &ecdsa), &sec1)).await.unwrap();
    scene.is_shown(name, &second.pem()).await;
    scene.call(name, &first.pem()).unwrap_err();

    // A broken Secret changes nothing about itself or others.
    bed.apply(secret(SECRETS[0], "broken", &sec1)).await.unwrap();
    let (rsa, pkcs1) = key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "rsa");
    assert!(pkcs1.contains("RSA PRIVATE KEY"), "{}", pkcs1.lines().next().unwrap());
    let certificate = certify(&first, "*.wild.public.example", &rsa);
    bed.apply(secret(SECRETS[1], &certificate, &pkcs1)).await.unwrap();
    scene.is_shown(wildcard, &first.pem()).await;
    assert_eq!(scene.call(name, &second.pem()), Ok(200));
    assert_eq!(scene.call("localhost", &own), Ok(200));
    let unknown = scene.call("unknown.example", &second.pem()).unwrap_err();
    assert!(unknown.contains("subject name") || unknown.contains("SAN"), "the first one is shown: {unknown}");

    let metrics = run("curl", &["--silent", bed.env("EDGE_METRICS_URL")], "").1;
    let expiry = |secret: &str| {
        let line = format!("credence_edge_serving_certificate_expiry_timestamp_seconds{{secret=\"{secret}\"}} ");
        metrics.lines().find_map(|metric| metric.strip_prefix(&line)).unwrap().parse::<i64>().unwrap()
    };
    assert!(SECRETS.iter().all(|secret| expiry(secret) > now()), "{metrics}");
    for secret in SECRETS {
        bed.api("Secret", Some(EDGE)).delete(secret, &DeleteParams::default()).await.unwrap();
    }
    assert_eq!(scene.call(wildcard, &first.pem()), Ok(200), "it is shown until the edge restarts");
}

//! The token issuer: tokens and key sets per second, latency, and its CPU time and memory.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::Bench;
use crate::bed::{Bed, until};
use crate::calls::{agreed, calling, id};
use crate::hooks::{tls, tls_builder};
use crate::load::{Burst, namespaces, spread};
use crate::measure::{Probe, process_memory};
use crate::watch::Watch;
use crate::webhooks::{CONNECTIONS, Destination, Load, Prepared, load};

/// Requests of a load at full speed, for each second that it should take.
const PER_SECOND: usize = 10_000;
/// Requests per second that do not saturate the processors.
const PACE: u64 = 1_000;
/// Namespaces with a service that asks. Connections are divided among them.
const HOMES: usize = 8;
const EXCHANGE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
const JWT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt";
const FORM: &str = "application/x-www-form-urlencoded";
/// Who the users of the load belong to.
const LOGIN: &str = "https://login.bench.example";

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let memory = |field| process_memory(bed.env("TOKENS_PID"), field);
    report.add("memory at rest", memory("VmRSS"), "MiB");
    // Each namespace has a share of the rate.
    let homes = namespaces(bed, "tokens", HOMES).await?;
    let callee = id(&homes[0], "payments");
    let scopes: &[&str] = &["pay:read", "pay:write"];
    let callers: Vec<_> = homes.iter().map(|home| (home.as_str(), "orders", scopes)).collect();
    bed.apply(calling(&homes[0], "payments", &[], &callers)).await?;
    let provider = Provider::new(bed).await?;
    let (mut identities, mut exchanges) = (Vec::new(), Vec::new());
    for home in &homes {
        bed.apply(calling(home, "orders", &[(&homes[0], "payments", scopes)], &[])).await?;
        agreed(bed, home, "orders").await;
        provider.known_to(bed, home).await;
        let folder = bed.mount(home, "orders-mtls").await;
        let chain = CertificateDer::pem_file_iter(folder.join("tls.crt")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).unwrap();
        let tls = tls_builder(bed).with_client_auth_cert(chain, key).unwrap();
        identities.push(TlsConnector::from(Arc::new(tls)));
        let user = provider.token(&id(home, "orders"));
        exchanges.push(format!(
            "grant_type={EXCHANGE}&scope=pay:read&audience={callee}&subject_token_type={JWT}&subject_token={user}"
        ));
    }
    let service = Destination::tokens(bed, identities);
    let anybody = Destination::tokens(bed, vec![TlsConnector::from(Arc::new(tls(bed)))]);
    // The replica reports the subject issuer that it serves now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stored = bed.get("ConfigMap", Some("credence-tokens"), "bed-tokens").await.unwrap().metadata.resource_version;
    let own = vec![format!("grant_type=client_credentials&scope=pay:read&audience={callee}")];
    let seconds = usize::try_from(sizes.seconds).unwrap();
    let paced = seconds * usize::try_from(PACE).unwrap();
    for (name, bodies, at_once) in [("with an SVID", &own, PER_SECOND), ("for a user", &exchanges, PER_SECOND / 2)] {
        let fast = load(&service, posts(bed, bodies, seconds * at_once), None).await?;
        add_to(&fast, report, name, "tokens");
        let slow = load(&service, posts(bed, bodies, paced), Some(PACE)).await?;
        for percent in [50, 99] {
            report.add(format!("{name}, {PACE}/s: latency, p{percent}"), slow.latency(percent), "ms");
        }
    }
    let keys = (0..seconds * PER_SECOND * 2).map(|_| request(bed, "GET", "/jwks.json", "")).collect();
    add_to(&load(&anybody, by_connection(keys), None).await?, report, "key set", "answers");
    report.add("memory under load, peak", memory("VmHWM"), "MiB");
    let now = bed.get("ConfigMap", Some("credence-tokens"), "bed-tokens").await.unwrap().metadata.resource_version;
    report.add("API writes meanwhile", f64::from(u8::from(stored != now)), "");
    many(bench).await
}

/// Very many services, each of which may call the next one.
async fn many(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let homes = spread(bed, "callers").await?;
    let home = |number: usize| homes[number % homes.len()].as_str();
    let one = |number: usize| {
        let (before, next) = ((number + sizes.callers - 1) % sizes.callers, (number + 1) % sizes.callers);
        let (before_name, next_name) = (format!("service-{before}"), format!("service-{next}"));
        let callee: &[(&str, &str, &[&str])] = &[(home(next), &next_name, &["read"])];
        calling(home(number), &format!("service-{number}"), callee, &[(home(before), &before_name, &["read"])])
    };
    let mut watch = Watch::open(bed, "ServiceIdentity", None).await;
    let probe = Probe::begin(bed).await?;
    let burst = Burst::run(bed, &mut watch, "callers", (0..sizes.callers).map(one).collect()).await?;
    let cost = probe.end(bed).await?;
    report.add("identities that call, Ready", burst.rate(), "/s");
    cost.add_to(report, "identity that calls", sizes.callers);
    let memory = process_memory(bed.env("TOKENS_PID"), "VmRSS");
    report.add(format!("memory with {} identities that call", sizes.callers), memory, "MiB");
    Ok(())
}

fn add_to(load: &Load, report: &mut crate::report::Report, name: &str, what: &str) {
    load.add_as(report, name, what, "the token issuer");
}

/// Requests for tokens. Each connection is of the service whose turn it is, and so is what it asks for.
fn posts(bed: &Bed, bodies: &[String], count: usize) -> Prepared {
    let of = |number: usize| &bodies[number % CONNECTIONS % bodies.len()];
    by_connection((0..count).map(|number| request(bed, "POST", "/token", of(number))).collect())
}

fn request(bed: &Bed, method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let authority = bed.env("TOKENS_ISSUER").trim_start_matches("https://");
    let request = Request::builder().method(method).uri(path).header("host", authority).header("content-type", FORM);
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

fn by_connection(requests: Vec<Request<Full<Bytes>>>) -> Prepared {
    let mut prepared: Prepared = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (request, connection) in requests.into_iter().zip((0..CONNECTIONS).cycle()) {
        prepared[connection].push(request);
    }
    prepared
}

/// An identity provider whose users every service may act for.
struct Provider(EcdsaKeyPair);

impl Provider {
    async fn new(bed: &Bed) -> Result<Self, String> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "bench", "x": encode(x), "y": encode(y)});
        let metadata = json!({"name": "bench-login", "namespace": "credence-system"});
        let entry = json!({"jwks.json": json!({"keys": [jwk]}).to_string()});
        bed.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entry})).await?;
        let issuer = json!({
            "name": "bench", "issuer": LOGIN, "namespaceSelector": {}, "tenant": {"claim": "org"},
            "keys": {"secretRef": {"name": "bench-login"}},
        });
        bed.apply(json!({
            "apiVersion": "credence.dev/v1alpha1", "kind": "TrustDomain", "metadata": {"name": "demo"},
            "spec": {"subjectIssuers": [issuer]},
        }))
        .await?;
        Ok(Self(key))
    }

    /// Waits until the service of a namespace may act for its users.
    async fn known_to(&self, bed: &Bed, namespace: &str) {
        until("the service to be able to act for users", || async {
            let status = bed.get("ServiceIdentity", Some(namespace), "orders").await.unwrap().data["status"].clone();
            if status["calls"]["subjectIssuers"][0] == "bench" { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }

    /// A token of a user, for a service.
    fn token(&self, service: &str) -> String {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({"iss": LOGIN, "aud": service, "sub": "4711", "org": "acme", "iat": now, "exp": now + 3600});
        let header = json!({"alg": "ES256", "kid": "bench", "typ": "JWT"});
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

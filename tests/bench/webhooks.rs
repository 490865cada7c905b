//! Verified deliveries through the edge: how many, how fast, and what the edge takes for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::Router;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::Bench;
use crate::bed::{Bed, identity, manifest, policy, with};
use crate::hooks::{HttpsClient, https, now};
use crate::load::{at_once, float, namespaces};
use crate::measure::process_memory;

/// Requests under way at once, each on a kept connection.
const AT_ONCE: usize = 32;
/// Bytes of a body.
const BODY: usize = 1024;
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// How a delivery is signed.
#[derive(Clone, Copy)]
enum Scheme {
    /// Nothing is: what everything else costs.
    Token,
    Github,
    StandardWebhooks,
}

impl Scheme {
    fn verification(self) -> Value {
        match self {
            Self::Token => json!({"gitlab": {}}),
            Self::Github => json!({"github": {}}),
            Self::StandardWebhooks => json!({"standardWebhooks": {}}),
        }
    }

    fn headers(self, number: u64, body: &[u8]) -> Vec<(&'static str, String)> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
        match self {
            Self::Token => vec![("x-gitlab-token", KEY.to_owned())],
            Self::Github => {
                let tag: String = hmac::sign(&key, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                vec![("x-hub-signature-256", format!("sha256={tag}"))]
            }
            Self::StandardWebhooks => {
                let (id, at) = (format!("msg_{number}"), now().to_string());
                let text = [format!("{id}.{at}.").as_bytes(), body].concat();
                let tag = format!("v1,{}", STANDARD.encode(hmac::sign(&key, &text)));
                vec![("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", tag)]
            }
        }
    }
}

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let memory = |field| process_memory(bed.env("EDGE_PID"), field);
    report.add("memory at rest", memory("VmRSS"), "MiB");
    let port = target().await;
    let namespace = namespaces(bed, "webhooks", 1).await?.remove(0);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "keys", "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
        "stringData": {"raw": KEY},
    });
    bed.apply(secret.clone()).await?;
    let mut encoded = secret;
    encoded["metadata"]["name"] = json!("encoded");
    encoded["stringData"] = json!({"encoded": format!("whsec_{}", STANDARD.encode(KEY))});
    bed.apply(encoded).await?;
    let (client, number) = (https(bed), Arc::new(AtomicU64::new(0)));
    let plain = format!("http://127.0.0.1:{port}/hooks");
    let direct = load(&client, &plain, Scheme::Token, &number, sizes.seconds).await?;
    direct.tell(report, "straight to the target");
    let mut plumbing = None;
    for (name, scheme) in
        [("plain token", Scheme::Token), ("GitHub", Scheme::Github), ("Standard Webhooks", Scheme::StandardWebhooks)]
    {
        let endpoint = name.to_lowercase().replace(' ', "-");
        bed.apply(object(&namespace, &endpoint, port, scheme)).await?;
        bed.ready("WebhookEndpoint", Some(&namespace), &endpoint).await;
        let url = format!("{}/{namespace}/{endpoint}", bed.env("EDGE_URL"));
        let load = load(&client, &url, scheme, &number, sizes.seconds).await?;
        load.tell(report, name);
        match plumbing {
            None => plumbing = Some(load.rate),
            Some(plumbing) => report.add(format!("{name}: rate to that of a plain token"), load.rate / plumbing, "×"),
        }
    }
    let topic = object_with_topic(bed, &namespace).await?;
    let url = format!("{}/{namespace}/{topic}", bed.env("EDGE_URL"));
    let load = load(&client, &url, Scheme::Github, &number, sizes.seconds).await?;
    load.tell(report, "GitHub, to a topic of Kafka");
    report.add("memory under load, peak", memory("VmHWM"), "MiB");
    report.add("full TLS handshakes", handshakes(bed, sizes.seconds).await, "/s");
    at_once(0..sizes.endpoints, async |number| {
        bed.apply(object(&namespace, &format!("more-{number}"), port, Scheme::Github)).await.map(drop)
    })
    .await?;
    bed.ready("WebhookEndpoint", Some(&namespace), &format!("more-{}", sizes.endpoints - 1)).await;
    report.add(format!("memory with {} endpoints", sizes.endpoints), memory("VmRSS"), "MiB");
    Ok(())
}

/// A target that takes everything.
async fn target() -> u16 {
    let router = Router::new().route("/hooks", post(|_: Bytes| async { StatusCode::NO_CONTENT }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

/// An endpoint whose target is a topic of three partitions. Returns its name.
async fn object_with_topic(bed: &Bed, namespace: &str) -> Result<&'static str, String> {
    let (name, topic) = ("records", format!("sandbox.{namespace}"));
    bed.kafka("kafka-topics", &["--create", "--topic", &topic, "--partitions", "3"]);
    bed.apply(identity(namespace, "hooks", &["kafka"])).await?;
    let grants = json!([{"identity": {"name": "hooks"}, "actions": ["Publish"]}]);
    bed.apply(policy(namespace, "hooks", &topic, grants)).await?;
    bed.ready("ServiceIdentity", Some(namespace), "hooks").await;
    bed.ready("TopicPolicy", Some(namespace), "hooks").await;
    let target = json!({"kafka": {"broker": "kafka", "serviceIdentity": "hooks", "topic": topic}});
    bed.apply(with(object(namespace, name, 1, Scheme::Github), "/spec/target", target)).await?;
    bed.ready("WebhookEndpoint", Some(namespace), name).await;
    Ok(name)
}

fn object(namespace: &str, name: &str, port: u16, scheme: Scheme) -> Value {
    let secret = if matches!(scheme, Scheme::StandardWebhooks) { "encoded" } else { "keys" };
    let mut spec = json!({
        "path": format!("/{namespace}/{name}"),
        "verification": scheme.verification(),
        "keys": {"external": {"secretRef": {"name": secret}}},
        "target": {"service": {"name": "target", "port": port, "path": "/hooks"}},
        "limits": {"perSecond": 100_000},
        "replay": {"window": "10m"},
    });
    if matches!(scheme, Scheme::Token) {
        spec["source"] = json!({"cidrs": ["127.0.0.0/8"]});
    }
    manifest("WebhookEndpoint", Some(namespace), name, spec)
}

/// What a load brought about.
struct Load {
    rate: f64,
    latencies: Vec<Duration>,
}

impl Load {
    fn tell(&self, report: &mut crate::report::Report, name: &str) {
        report.add(format!("{name}: deliveries"), self.rate, "/s");
        for percent in [50, 99] {
            let at = (self.latencies.len() * percent / 100).min(self.latencies.len() - 1);
            report.add(format!("{name}: latency, p{percent}"), 1000.0 * self.latencies[at].as_secs_f64(), "ms");
        }
    }
}

async fn load(
    client: &HttpsClient,
    url: &str,
    scheme: Scheme,
    number: &Arc<AtomicU64>,
    seconds: u64,
) -> Result<Load, String> {
    let (began, lasts) = (Instant::now(), Duration::from_secs(seconds));
    let mut senders = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, url, number) = (client.clone(), url.to_owned(), number.clone());
        senders.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < lasts {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let body = format!("{number:0>BODY$}").into_bytes();
                let mut request = Request::post(&url);
                for (name, value) in scheme.headers(number, &body) {
                    request = request.header(name, value);
                }
                let request = request.body(Full::new(Bytes::from(body))).unwrap();
                let sent = Instant::now();
                let answer = client.request(request).await.map_err(|error| format!("{url}: {error:?}"))?;
                latencies.push(sent.elapsed());
                if !answer.status().is_success() {
                    return Err(format!("{url} answered {}", answer.status()));
                }
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = senders.join_next().await {
        latencies.extend(ended.unwrap()?);
    }
    let rate = float(latencies.len()) / began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Ok(Load { rate, latencies })
}

/// Handshakes without resumption, one after the other on eight tasks, each with a refused request.
async fn handshakes(bed: &Bed, seconds: u64) -> f64 {
    let (began, lasts) = (Instant::now(), Duration::from_secs(seconds));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let url = format!("{}/nowhere", bed.env("EDGE_URL"));
        let client = https(bed);
        callers.spawn(async move {
            let mut count = 0_usize;
            while began.elapsed() < lasts {
                let request = Request::post(&url).header("connection", "close").body(Full::default()).unwrap();
                count += usize::from(client.request(request).await.is_ok());
            }
            count
        });
    }
    let total: usize = callers.join_all().await.into_iter().sum();
    float(total) / began.elapsed().as_secs_f64()
}

//! Verified deliveries through the edge: rate, latency, and the CPU time and memory of the edge.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::Read;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::Bench;
use crate::bed::{Bed, identity, manifest, policy, with};
use crate::hooks::{https, tls};
use crate::load::{concurrently, float, namespaces};
use crate::measure::{process_cpu, process_memory};
use crate::schemes::{self, Scheme};

/// Concurrent requests, each on its own keep-alive connection.
pub const CONNECTIONS: usize = 32;
/// Size of a body in bytes.
pub const BODY: usize = 1024;
/// Deliveries of a load at full speed, for each second that it should take.
const PER_SECOND: u64 = 15_000;
/// How often a scheme alternates with the plain token.
const ROUNDS: usize = 5;
/// Deliveries per second that do not saturate the processors.
const PACE: u64 = 2_000;

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let memory = |field| process_memory(bed.env("EDGE_PID"), field);
    report.add("memory at rest", memory("VmRSS"), "MiB");
    let port = target().await;
    // A namespace has no more endpoints than those that only take memory.
    let mut made = namespaces(bed, "webhooks", 2).await?;
    let (others, namespace) = (made.remove(1), made.remove(0));
    let schemes = schemes::all();
    bed.apply(keys(&others, "more", &schemes[1].entry)).await?;
    concurrently(0..sizes.endpoints, async |number| {
        let more = webhook_endpoint(&others, &format!("more-{number}"), port, &schemes[1]);
        bed.apply(with(more, "/spec/keys/external/secretRef/name", json!("more"))).await.map(drop)
    })
    .await?;
    bed.ready("WebhookEndpoint", Some(&others), &format!("more-{}", sizes.endpoints - 1)).await;
    report.add(format!("memory with {} endpoints", sizes.endpoints), memory("VmRSS"), "MiB");
    let count = sizes.seconds * PER_SECOND;
    let plain = Destination::plain(bed, port);
    load(&plain, prepare(&schemes[0], "/hooks", 0..count), None).await?.add_to(report, "straight to the target");
    let each = count / u64::try_from(ROUNDS).unwrap();
    let mut numbers = (1..).map(|round| round * each..(round + 1) * each);
    let mut numbers = || numbers.next().unwrap();
    for (index, scheme) in schemes.iter().enumerate() {
        let endpoint = format!("scheme-{index}");
        bed.apply(keys(&namespace, &endpoint, &scheme.entry)).await?;
        bed.apply(webhook_endpoint(&namespace, &endpoint, port, scheme)).await?;
        bed.ready("WebhookEndpoint", Some(&namespace), &endpoint).await;
        let path = |index| format!("/{namespace}/scheme-{index}");
        if index == 0 {
            load(&Destination::edge(bed), prepare(scheme, &path(0), numbers()), None)
                .await?
                .add_to(report, scheme.name);
            report.add("memory under load, peak", memory("VmHWM"), "MiB");
            continue;
        }
        // Alternating with the plain token, which has no verification, because the speed of the machine varies.
        let (mut all, mut ratios) = (Load::default(), Vec::new());
        for _ in 0..ROUNDS {
            let own = load(&Destination::edge(bed), prepare(scheme, &path(index), numbers()), None).await?;
            let rest = load(&Destination::edge(bed), prepare(&schemes[0], &path(0), numbers()), None).await?;
            ratios.push(own.cpu() / rest.cpu());
            all.add(own);
        }
        all.add_to(report, scheme.name);
        ratios.sort_unstable_by(f64::total_cmp);
        let ratio = ratios[ratios.len() / 2];
        report.add(format!("{}: verification, of all else, median", scheme.name), 100.0 * (ratio - 1.0), "%");
    }
    fixed_rate(bench, port, &schemes[1], &namespace).await?;
    let Bench { bed, sizes, report } = bench;
    let topic = kafka_endpoint(bed, &namespace, &schemes[1]).await?;
    let path = format!("/{namespace}/{topic}");
    let records = prepare(&schemes[1], &path, numbers());
    load(&Destination::edge(bed), records, None).await?.add_to(report, "GitHub, to a topic of Kafka");
    report.add("memory after all of these, peak", process_memory(bed.env("EDGE_PID"), "VmHWM"), "MiB");
    report.add("full TLS handshakes", handshakes(bed, sizes.seconds).await, "/s");
    let with_idle = memory_with_idle_connections(bed, sizes.connections).await;
    report.add(format!("memory added by {} idle connections", sizes.connections), with_idle, "MiB");
    Ok(())
}

/// How much more memory the edge has while callers hold connections on which they send nothing. They are opened faster than the
/// edge closes idle ones.
async fn memory_with_idle_connections(bed: &Bed, count: usize) -> f64 {
    let memory = || process_memory(bed.env("EDGE_PID"), "VmRSS");
    let (to, before) = (Destination::edge(bed), memory());
    let held: Vec<_> = stream::iter(0..count).map(|_| to.connect()).buffer_unordered(CONNECTIONS).collect().await;
    let added = memory() - before;
    drop(held);
    added
}

/// The latency that the edge adds to deliveries at a fixed rate.
async fn fixed_rate(bench: &mut Bench, port: u16, scheme: &Scheme, namespace: &str) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let count = sizes.seconds * PACE;
    let numbers = u64::MAX / 2..u64::MAX / 2 + count;
    let path = format!("/{namespace}/scheme-1");
    let edge = load(&Destination::edge(bed), prepare(scheme, &path, numbers.clone()), Some(PACE)).await?;
    let direct = load(&Destination::plain(bed, port), prepare(scheme, "/hooks", numbers), Some(PACE)).await?;
    for percent in [50, 99] {
        let (edge, direct) = (edge.latency(percent), direct.latency(percent));
        report.add(format!("{}, {PACE}/s: latency, p{percent}", scheme.name), edge, "ms");
        report.add(format!("{}, {PACE}/s: of it through the edge, p{percent}", scheme.name), edge - direct, "ms");
    }
    Ok(())
}

/// A target that accepts everything.
async fn target() -> u16 {
    let router = Router::new().route("/hooks", post(|_: Bytes| async { StatusCode::NO_CONTENT }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

/// Creates an endpoint whose target is a topic with three partitions, and returns its name.
async fn kafka_endpoint(bed: &Bed, namespace: &str, scheme: &Scheme) -> Result<&'static str, String> {
    let (name, topic) = ("records", format!("sandbox.{namespace}"));
    bed.kafka("kafka-topics", &["--create", "--topic", &topic, "--partitions", "3"]);
    bed.apply(identity(namespace, "hooks", &["kafka"])).await?;
    let grants = json!([{"identity": {"name": "hooks"}, "actions": ["Publish"]}]);
    bed.apply(policy(namespace, "hooks", &topic, grants)).await?;
    bed.ready("ServiceIdentity", Some(namespace), "hooks").await;
    bed.ready("TopicPolicy", Some(namespace), "hooks").await;
    let target = json!({"kafka": {"broker": "kafka", "serviceIdentity": "hooks", "topic": topic}});
    bed.apply(keys(namespace, name, &scheme.entry)).await?;
    bed.apply(with(webhook_endpoint(namespace, name, 1, scheme), "/spec/target", target)).await?;
    bed.ready("WebhookEndpoint", Some(namespace), name).await;
    Ok(name)
}

pub fn keys(namespace: &str, name: &str, entry: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"credence.dev/webhook-keys": "true"}},
        "stringData": {"only": entry},
    })
}

pub fn webhook_endpoint(namespace: &str, name: &str, port: u16, scheme: &Scheme) -> Value {
    let spec = json!({
        "path": format!("/{namespace}/{name}"),
        "externalURL": schemes::URL,
        "verification": scheme.verification,
        "source": {"cidrs": ["127.0.0.0/8"]},
        "keys": {"external": {"secretRef": {"name": name}}},
        "target": {"service": {"name": "target", "port": port, "path": "/hooks"}},
        "limits": {"perSecond": 100_000},
        // A short replay window: there are more deliveries than the history of one edge can hold.
        "tolerance": {"past": "50s", "future": "10s"},
        "replay": {"window": "1m"},
    });
    manifest("WebhookEndpoint", Some(namespace), name, spec)
}

/// Prepared requests, by connection.
pub type Prepared = Vec<Vec<Request<Full<Bytes>>>>;

pub fn prepare(scheme: &Scheme, path: &str, numbers: Range<u64>) -> Prepared {
    let mut prepared: Prepared = (0..CONNECTIONS).map(|_| Vec::new()).collect();
    for (number, connection) in numbers.zip((0..CONNECTIONS).cycle()) {
        let body = format!("{number:0>BODY$}").into_bytes();
        let signed = (scheme.sign)(number, &body);
        let mut request = Request::post(format!("{path}{}", signed.query)).header("host", "localhost");
        for (name, value) in signed.headers {
            request = request.header(name, value);
        }
        prepared[connection].push(request.body(Full::new(Bytes::from(body))).unwrap());
    }
    prepared
}

/// The destination of a load.
pub struct Destination {
    port: u16,
    /// Connections take these in turn; none for plain HTTP.
    tls: Vec<TlsConnector>,
    /// The process whose CPU time is measured.
    process: String,
    /// How many connections were opened.
    opened: AtomicU8,
    /// Whether each connection comes from an address of its own.
    is_spread: bool,
}

impl Destination {
    fn plain(bed: &Bed, port: u16) -> Self {
        Self::new(port, Vec::new(), bed.env("EDGE_PID"))
    }

    /// The token issuer, which limits the requests from each address.
    pub fn tokens(bed: &Bed, tls: Vec<TlsConnector>) -> Self {
        let to = Self::new(port(bed.env("TOKENS_ISSUER")), tls, bed.env("TOKENS_PID"));
        Self { is_spread: true, ..to }
    }

    fn new(port: u16, tls: Vec<TlsConnector>, process: &str) -> Self {
        Self { port, tls, process: process.to_owned(), opened: AtomicU8::new(0), is_spread: false }
    }

    pub fn edge(bed: &Bed) -> Self {
        Self::over_tls(bed, "EDGE")
    }

    /// The edge or nginx.
    pub fn over_tls(bed: &Bed, part: &str) -> Self {
        let port = port(bed.env(&format!("{part}_URL")));
        Self::new(port, vec![TlsConnector::from(Arc::new(tls(bed)))], bed.env("EDGE_PID"))
    }

    pub async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let socket = TcpSocket::new_v4().unwrap();
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        if self.is_spread {
            socket.bind((Ipv4Addr::new(127, 0, 1, number), 0).into()).unwrap();
        }
        let stream = socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match self.tls.get(usize::from(number) % self.tls.len().max(1)) {
            None => handshake(TokioIo::new(stream)).await,
            Some(tls) => {
                let name = ServerName::try_from("localhost").unwrap();
                handshake(TokioIo::new(tls.connect(name, stream).await.unwrap())).await
            }
        }
    }
}

fn port(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.parse().unwrap()
}

async fn handshake(io: impl Read + hyper::rt::Write + Unpin + Send + 'static) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The results of a load.
#[derive(Default)]
pub struct Load {
    took: Duration,
    /// CPU time of the process, in seconds.
    cpu: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.took += other.took;
        self.cpu += other.cpu;
        self.latencies.extend(other.latencies);
        self.latencies.sort_unstable();
    }

    fn rate(&self) -> f64 {
        float(self.latencies.len()) / self.took.as_secs_f64()
    }

    /// CPU time of the process for each request, in microseconds.
    fn cpu(&self) -> f64 {
        1e6 * self.cpu / float(self.latencies.len())
    }

    pub fn latency(&self, percent: usize) -> f64 {
        percentile(&self.latencies, percent)
    }

    fn add_to(&self, report: &mut crate::report::Report, name: &str) {
        self.add_as(report, name, "deliveries", "the edge");
    }

    pub fn add_as(&self, report: &mut crate::report::Report, name: &str, what: &str, process: &str) {
        report.add(format!("{name}: {what}"), self.rate(), "/s");
        for percent in [50, 99] {
            report.add(format!("{name}: latency, p{percent}"), self.latency(percent), "ms");
        }
        report.add(format!("{name}: processor of {process} for each"), self.cpu(), "µs");
    }
}

/// A percentile of sorted latencies, in milliseconds.
pub fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len() - 1);
    1000.0 * sorted[at].as_secs_f64()
}

/// Sends all requests, one after the other on each connection: at full speed, or at a total rate per second.
pub async fn load(to: &Destination, requests: Prepared, pace: Option<u64>) -> Result<Load, String> {
    let mut connections = Vec::new();
    for requests in requests {
        connections.push((to.connect().await, requests));
    }
    let interval =
        pace.map(|pace| Duration::from_secs(1) * u32::try_from(CONNECTIONS).unwrap() / u32::try_from(pace).unwrap());
    let (cpu, began) = (process_cpu(&to.process), Instant::now());
    let mut senders = JoinSet::new();
    for (index, (mut connection, requests)) in connections.into_iter().enumerate() {
        senders.spawn(async move {
            let mut latencies = Vec::with_capacity(requests.len());
            for (number, request) in requests.into_iter().enumerate() {
                if let Some(interval) = interval {
                    let turn = interval * u32::try_from(number).unwrap();
                    let shift = interval * u32::try_from(index).unwrap() / u32::try_from(CONNECTIONS).unwrap();
                    tokio::time::sleep_until((began + turn + shift).into()).await;
                }
                let path = request.uri().path().to_owned();
                let sent = Instant::now();
                let answer = connection.send_request(request).await.map_err(|error| format!("{path}: {error:?}"))?;
                latencies.push(sent.elapsed());
                if !answer.status().is_success() {
                    return Err(format!("{path} answered {}", answer.status()));
                }
                connection.ready().await.map_err(|error| format!("{path}: {error:?}"))?;
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = senders.join_next().await {
        latencies.extend(ended.unwrap()?);
    }
    let (took, cpu) = (began.elapsed(), process_cpu(&to.process) - cpu);
    latencies.sort_unstable();
    Ok(Load { took, cpu, latencies })
}

/// Full TLS handshakes per second: eight tasks, each with one refused request per connection.
async fn handshakes(bed: &Bed, seconds: u64) -> f64 {
    let (began, lasts) = (Instant::now(), Duration::from_secs(seconds));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let url = format!("{}/nowhere", bed.env("EDGE_URL"));
        let client = https(tls(bed));
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

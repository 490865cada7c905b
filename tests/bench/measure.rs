//! The cost of work for the operator: its own metrics, and CPU time and memory from the kernel.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::{Bed, run};
use crate::load::float;
use crate::report::Report;
use crate::watch::TIMEOUT;

/// How long the operator must do nothing to count as idle.
const IDLE_TIME: Duration = Duration::from_secs(2);

/// Interval between two reads of the metrics. Collecting them costs the operator CPU time, too.
const POLL: Duration = Duration::from_millis(250);

/// The kernel reports CPU time in hundredths of a second, independent of its own clock rate.
const TICKS: f64 = 100.0;

/// The operator's metrics in the text format.
pub struct Metrics(String);

impl Metrics {
    pub async fn read(bed: &Bed) -> Result<Self, String> {
        ask(bed, "/metrics").await.map(Self)
    }

    /// The samples of a metric, each with labels and value.
    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
        })
    }

    fn sum(&self, name: &str) -> f64 {
        self.samples(name).map(|(_, value)| value).sum()
    }

    /// Sums by one label. Requests for the Lease are excluded.
    fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.samples(name).filter(|(labels, _)| !labels.contains(r#"="leases""#)) {
            let found = labels.split_once(&format!("{label}=\"")).and_then(|(_, rest)| rest.split_once('"'));
            *sums.entry(found.unwrap_or_default().0.to_owned()).or_default() += value;
        }
        sums
    }
}

/// Sends a request to the operator's HTTP server, without a client library, which might retry.
pub async fn ask(bed: &Bed, path: &str) -> Result<String, String> {
    let url = bed.env("OPERATOR_METRICS_URL");
    let address = url.trim_start_matches("http://").trim_end_matches("/metrics");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer: std::io::Result<String> = exchange.await;
    let answer = answer.map_err(|error| format!("the operator does not respond: {error}"))?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Waits until the operator is idle, and returns when it last did something.
pub async fn wait_until_idle(bed: &Bed) -> Result<Instant, String> {
    let (began, mut count, mut progressed) = (Instant::now(), f64::NAN, Instant::now());
    while progressed.elapsed() < IDLE_TIME {
        let metrics = Metrics::read(bed).await?;
        let (now, waiting) = (metrics.sum("credence_reconciles_total"), metrics.sum("credence_queue_depth"));
        #[allow(clippy::float_cmp, reason = "a counter either progressed or did not")]
        if now != count || waiting > 0.0 {
            (count, progressed) = (now, Instant::now());
        }
        if began.elapsed() > TIMEOUT {
            return Err(format!("the operator is not idle: {now} reconciles so far, {waiting} objects in the queue"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(progressed)
}

/// The counters of the operator at the beginning of some work.
pub struct Probe {
    requests: BTreeMap<String, f64>,
    broker: BTreeMap<String, f64>,
    cpu: f64,
}

/// The cost of the work.
pub struct Cost {
    /// Requests to the Kubernetes API, by verb.
    pub requests: BTreeMap<String, f64>,
    /// Requests to brokers, by name.
    pub broker: BTreeMap<String, f64>,
    /// CPU seconds.
    pub cpu: f64,
    /// Peak memory, in MiB.
    pub peak: f64,
}

impl Probe {
    /// Starts to measure, and resets the peak of memory.
    pub async fn begin(bed: &Bed) -> Result<Self, String> {
        std::fs::write(format!("/proc/{}/clear_refs", bed.env("OPERATOR_PID")), "5")
            .map_err(|error| format!("the peak of memory could not be reset: {error}"))?;
        let metrics = Metrics::read(bed).await?;
        let (requests, broker) = counted(&metrics);
        Ok(Self { requests, broker, cpu: cpu(bed) })
    }

    /// Measures since the start of the process.
    pub fn zero() -> Self {
        Self { requests: BTreeMap::new(), broker: BTreeMap::new(), cpu: 0.0 }
    }

    /// Waits until the operator is idle, and returns the cost.
    pub async fn end(self, bed: &Bed) -> Result<Cost, String> {
        wait_until_idle(bed).await?;
        self.end_now(bed).await
    }

    pub async fn end_now(self, bed: &Bed) -> Result<Cost, String> {
        let (requests, broker) = counted(&Metrics::read(bed).await?);
        Ok(Cost {
            requests: since(requests, &self.requests),
            broker: since(broker, &self.broker),
            cpu: cpu(bed) - self.cpu,
            peak: memory(bed, "VmHWM"),
        })
    }
}

fn counted(metrics: &Metrics) -> (BTreeMap<String, f64>, BTreeMap<String, f64>) {
    (metrics.by("credence_kubernetes_requests_total", "verb"), metrics.by("credence_broker_requests_total", "request"))
}

fn since(mut now: BTreeMap<String, f64>, before: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    for (name, value) in &mut now {
        *value -= before.get(name).unwrap_or(&0.0);
    }
    now
}

impl Cost {
    pub fn writes(&self) -> f64 {
        ["POST", "PATCH", "PUT", "DELETE"].iter().filter_map(|verb| self.requests.get(*verb)).sum()
    }

    pub fn all_requests(&self) -> f64 {
        self.requests.values().sum()
    }

    /// Adds all costs to the report, by object.
    pub fn add_to(&self, report: &mut Report, object: &str, count: usize) {
        let count = float(count);
        report.add(format!("API writes per {object}"), self.writes() / count, "");
        // Occasional requests, such as reopening a watch, are not a cost of an object.
        for (verb, requests) in self.requests.iter().filter(|(_, requests)| **requests / count >= 0.01) {
            report.add(format!("API requests per {object}: {verb}"), requests / count, "");
        }
        for (request, times) in self.broker.iter().filter(|(_, times)| **times > 0.0) {
            report.add(format!("Kafka requests: {request}"), *times, "");
        }
        report.add("CPU of the operator", self.cpu, "s");
        report.add(format!("CPU per {object}"), 1000.0 * self.cpu / count, "ms");
        report.add("peak memory", self.peak, "MiB");
    }
}

/// Fields of `/proc/PID/stat` from the third on; the second may contain spaces.
fn stat(pid: &str) -> Vec<f64> {
    let text = read_to_string(format!("/proc/{pid}/stat")).expect("the process does not exist");
    let (_, fields) = text.rsplit_once(')').unwrap();
    fields.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
}

/// CPU seconds of the operator so far.
fn cpu(bed: &Bed) -> f64 {
    process_cpu(bed.env("OPERATOR_PID"))
}

/// CPU seconds of a process so far.
pub fn process_cpu(pid: &str) -> f64 {
    let fields = stat(pid);
    (fields[11] + fields[12]) / TICKS
}

/// CPU seconds of a process and its children so far.
pub fn family_cpu(pid: &str) -> f64 {
    let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the process does not exist");
    process_cpu(pid) + children.split_whitespace().map(process_cpu).sum::<f64>()
}

/// The age of the operator's process, in seconds.
pub fn age(bed: &Bed) -> f64 {
    let uptime = read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    uptime - stat(bed.env("OPERATOR_PID"))[19] / TICKS
}

/// `VmRSS` or `VmHWM` of the operator, in MiB.
pub fn memory(bed: &Bed, field: &str) -> f64 {
    process_memory(bed.env("OPERATOR_PID"), field)
}

/// `VmRSS` or `VmHWM` of a process, in MiB.
pub fn process_memory(pid: &str, field: &str) -> f64 {
    let status = read_to_string(format!("/proc/{pid}/status")).expect("the process does not exist");
    kib(&status, field) / 1024.0
}

fn kib(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}

/// CPU time of all processors: busy, and in total.
pub struct Processors(f64, f64);

impl Processors {
    pub fn now() -> Self {
        let text = read_to_string("/proc/stat").unwrap();
        let times: Vec<f64> =
            text.lines().next().unwrap().split_whitespace().skip(1).take(8).map(|it| it.parse().unwrap()).collect();
        let all: f64 = times.iter().sum();
        Self(all - times[3] - times[4], all)
    }

    /// CPU utilization since then, in percent.
    pub fn busy(&self) -> f64 {
        let now = Self::now();
        100.0 * (now.0 - self.0) / (now.1 - self.1)
    }
}

/// The machine, the versions and the source of the figures.
pub async fn machine(bed: &Bed) -> Vec<(&'static str, String)> {
    let read = |file: &str| read_to_string(file).unwrap_or_default();
    let output_of = |program: &str, arguments: &[&str]| run(program, arguments, "").1.trim().to_owned();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().unwrap();
    let source = output_of("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    vec![
        ("date", jiff::Timestamp::now().strftime("%F %H:%M UTC").to_string()),
        ("processors", format!("{cores} × {}", model.map_or("unknown", |it| it.1))),
        ("memory", format!("{:.1} GiB", kib(&read("/proc/meminfo"), "MemTotal") / 1024.0 / 1024.0)),
        ("load before", read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("API server", bed.client.apiserver_version().await.unwrap().git_version),
        ("Kafka", output_of(&bed.kafka_tool("kafka-topics"), &["--version"])),
        ("operator", output_of(&format!("{}/credence", bed.env("BED_BIN")), &["--version"])),
        ("source", source),
    ]
}

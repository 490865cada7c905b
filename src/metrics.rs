//! Metrics in the `OpenMetrics` format, named after the conventions of Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::output::lost_log_lines;
use crate::stalls;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: &'static str,
    ready: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BrokerRequestLabels {
    broker: String,
    request: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BrokerLabels {
    broker: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrustDomainLabels {
    trust_domain: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// The figures of one broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerFigures {
    /// Whether it answers the operator.
    pub up: bool,
    /// How many bindings of policies it has.
    pub applied: u32,
    /// How many bindings that were applied it lacks.
    pub missing: u32,
    /// How many ACLs no policy claims.
    pub unmanaged: u32,
}

/// The figures of all certificates of a trust domain. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateFigures {
    /// When the first of them expires.
    pub earliest_expiry: Option<i64>,
    /// When the oldest of them was issued.
    pub oldest_issue: Option<i64>,
    /// How many are past their renewal point.
    pub overdue: u32,
    /// When the signing authority expires.
    pub authority_expiry: Option<i64>,
}

type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of the operator.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    durations: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    stalls: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    queue_depth: Family<ControllerLabels, Gauge>,
    queue_oldest: Family<ControllerLabels, Seconds>,
    objects: Family<ObjectLabels, Gauge>,
    issued: Family<CauseLabels, Counter>,
    earliest_expiry: Family<TrustDomainLabels, Gauge>,
    oldest_issue: Family<TrustDomainLabels, Gauge>,
    overdue: Family<TrustDomainLabels, Gauge>,
    authority_expiry: Family<TrustDomainLabels, Gauge>,
    broker_up: Family<BrokerLabels, Gauge>,
    grants_applied: Family<BrokerLabels, Gauge>,
    grants_missing: Family<BrokerLabels, Gauge>,
    unmanaged: Family<BrokerLabels, Gauge>,
    drift_found: Family<BrokerLabels, Counter>,
    drift_repaired: Family<BrokerLabels, Counter>,
    broker_requests: Family<BrokerRequestLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    kubernetes_drift_repaired: Family<KindLabels, Counter>,
    interruptions: Family<KindLabels, Counter>,
    leading: Gauge,
    cpu: Counter<f64, AtomicU64>,
    memory: Gauge,
    refresh: Mutex<Option<Refresh>>,
}

/// Buckets from one millisecond to 33 seconds.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

fn gauge(labels: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    labels.register(name, help, gauge.clone());
    gauge
}

fn family<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
    M: prometheus_client::encoding::EncodeMetric
        + prometheus_client::metrics::TypedMetric
        + Default
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let family = Family::<L, M>::default();
    registry.register(name, help, family.clone());
    family
}

impl Default for Metrics {
    fn default() -> Self {
        let mut root = Registry::default();
        let cpu = Counter::default();
        root.register_with_unit("process_cpu", "CPU time of this process, user and system", Unit::Seconds, cpu.clone());
        let memory = Gauge::default();
        root.register_with_unit(
            "process_resident_memory",
            "Resident memory of this process",
            Unit::Bytes,
            memory.clone(),
        );
        let started =
            gauge(&mut root, "process_start_time_seconds", "When this process started, in seconds since 1970");
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        started.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));

        let registry = root.sub_registry_with_prefix("credence");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this program", build);
        let durations: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(durations as fn() -> Histogram);
        let help = "How long a reconcile takes";
        registry.register_with_unit("reconcile_duration", help, Unit::Seconds, durations.clone());
        registry.register("log_lines_lost", "Lines of the log that nobody took", lost_log_lines());
        let stalls: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(stalls::histogram as fn() -> Histogram);
        let help = "Steps of work that held a thread for a millisecond or longer";
        registry.register_with_unit("operator_stall", help, Unit::Seconds, stalls.clone());
        let leading = gauge(registry, "leading", "Whether this process holds the lease and leads");
        Self {
            durations,
            stalls,
            leading,
            cpu,
            memory,
            reconciles: family(registry, "reconciles", "Reconciles by controller, outcome and reason"),
            queue_depth: family(registry, "queue_depth", "Objects that wait for a worker"),
            queue_oldest: family(
                registry,
                "queue_oldest_seconds",
                "How long the oldest object in the queue has waited",
            ),
            objects: family(registry, "objects", "Objects by kind and condition Ready"),
            issued: family(registry, "certificates_issued", "Certificates issued by cause"),
            earliest_expiry: family(
                registry,
                "certificate_earliest_expiry_timestamp_seconds",
                "When the first certificate of a trust domain expires",
            ),
            oldest_issue: family(
                registry,
                "certificate_oldest_issue_timestamp_seconds",
                "When the oldest certificate in use of a trust domain was issued",
            ),
            overdue: family(registry, "certificates_overdue", "Certificates past their renewal point"),
            authority_expiry: family(
                registry,
                "authority_expiry_timestamp_seconds",
                "When the signing authority of a trust domain expires",
            ),
            broker_up: family(registry, "broker_up", "Whether the broker answers the operator"),
            grants_applied: family(registry, "broker_grants_applied", "Bindings of policies that the broker has"),
            grants_missing: family(registry, "broker_grants_missing", "Bindings of policies that the broker lacks"),
            unmanaged: family(registry, "broker_unmanaged", "ACLs on the broker that no policy claims"),
            drift_found: family(registry, "broker_drift_found", "Bindings that were found missing on a broker"),
            drift_repaired: family(registry, "broker_drift_repaired", "Missing bindings that were created again"),
            broker_requests: family(registry, "broker_requests", "Requests to brokers by kind and outcome"),
            requests: family(
                registry,
                "kubernetes_requests",
                "Requests to the Kubernetes API by verb, resource and HTTP status, 0 when there was no answer",
            ),
            kubernetes_drift_repaired: family(
                registry,
                "kubernetes_drift_repaired",
                "Objects of Credence that were repaired after another writer had changed or deleted them",
            ),
            interruptions: family(registry, "watch_interruptions", "Interruptions of watches; each is retried"),
            refresh: Mutex::new(None),
            registry: root,
        }
    }
}

impl Metrics {
    /// Counts a reconcile.
    pub fn reconciled(&self, controller: &'static str, outcome: &'static str, reason: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { controller, outcome, reason }).inc();
        self.durations.get_or_create(&ControllerLabels { controller }).observe(took.as_secs_f64());
    }

    /// Notes for how long a step of a controller held its thread.
    pub fn held(&self, controller: &'static str, held: Duration) {
        self.stalls.get_or_create(&ControllerLabels { controller }).observe(held.as_secs_f64());
    }

    /// Sets the figures of a queue.
    pub fn queue(&self, controller: &'static str, depth: usize, oldest: Duration) {
        let labels = ControllerLabels { controller };
        self.queue_depth.get_or_create(&labels).set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.queue_oldest.get_or_create(&labels).set(oldest.as_secs_f64());
    }

    /// Replaces the numbers of objects, by kind, status of the condition `Ready`, and its reason.
    pub fn objects(&self, counts: impl IntoIterator<Item = ((&'static str, String, String), i64)>) {
        self.objects.clear();
        for ((kind, ready, reason), count) in counts {
            self.objects.get_or_create(&ObjectLabels { kind, ready, reason }).set(count);
        }
    }

    /// Replaces the figures of certificates, by trust domain.
    pub fn certificates(&self, figures: impl IntoIterator<Item = (String, CertificateFigures)>) {
        let times = [&self.earliest_expiry, &self.oldest_issue, &self.authority_expiry];
        times.into_iter().chain([&self.overdue]).for_each(Family::clear);
        for (trust_domain, figures) in figures {
            let labels = TrustDomainLabels { trust_domain };
            let values = [figures.earliest_expiry, figures.oldest_issue, figures.authority_expiry];
            for (family, value) in times.into_iter().zip(values) {
                if let Some(value) = value {
                    family.get_or_create(&labels).set(value);
                }
            }
            self.overdue.get_or_create(&labels).set(i64::from(figures.overdue));
        }
    }

    /// Replaces the figures of brokers, by `BrokerConnection`.
    pub fn brokers(&self, figures: impl IntoIterator<Item = (String, BrokerFigures)>) {
        let families = [&self.broker_up, &self.grants_applied, &self.grants_missing, &self.unmanaged];
        families.into_iter().for_each(Family::clear);
        for (broker, figures) in figures {
            let labels = BrokerLabels { broker };
            let values = [u32::from(figures.up), figures.applied, figures.missing, figures.unmanaged];
            for (family, value) in families.into_iter().zip(values) {
                family.get_or_create(&labels).set(i64::from(value));
            }
        }
    }

    /// Counts an issued certificate.
    pub fn issued(&self, cause: &str) {
        self.issued.get_or_create(&CauseLabels { cause: cause.to_owned() }).inc();
    }

    /// Counts a request to the Kubernetes API; the code is 0 when there was no answer.
    pub fn requested(&self, verb: &'static str, resource: String, code: u16) {
        self.requests.get_or_create(&RequestLabels { verb, resource, code }).inc();
    }

    /// Counts a request to a broker.
    pub fn broker_requested(&self, broker: &str, request: &str, answered: bool) {
        let outcome = if answered { "answered" } else { "failed" };
        let labels = BrokerRequestLabels { broker: broker.to_owned(), request: request.to_owned(), outcome };
        self.broker_requests.get_or_create(&labels).inc();
    }

    /// Counts an object that was repaired after another writer had changed or deleted it.
    pub fn kubernetes_repaired(&self, kind: &str) {
        self.kubernetes_drift_repaired.get_or_create(&KindLabels { kind: kind.to_owned() }).inc();
    }

    /// Counts bindings that a broker had lost, and how many of them were created again.
    pub fn broker_drift(&self, broker: &str, found: u64, repaired: u64) {
        let labels = BrokerLabels { broker: broker.to_owned() };
        self.drift_found.get_or_create(&labels).inc_by(found);
        self.drift_repaired.get_or_create(&labels).inc_by(repaired);
    }

    /// Counts an interruption of a watch.
    pub fn interrupted(&self, kind: &str) {
        self.interruptions.get_or_create(&KindLabels { kind: kind.to_owned() }).inc();
    }

    /// Clears all gauges about objects: a standby replica has no data for them.
    pub fn stand_down(&self) {
        *self.refresh.lock() = None;
        self.queue_depth.clear();
        self.queue_oldest.clear();
        self.objects([]);
        self.certificates([]);
        self.brokers([]);
        self.leading(false);
    }

    /// Sets whether this process holds the lease.
    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Sets the function that updates gauges before every exposition.
    pub fn refresh_with(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        *self.refresh.lock() = Some(Box::new(refresh));
    }

    /// All metrics in the `OpenMetrics` text format.
    #[must_use]
    pub fn render(&self) -> String {
        if let Some(refresh) = self.refresh.lock().as_ref() {
            refresh(self);
        }
        self.measure_process();
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }

    /// Reads CPU time and memory of this process from `/proc` (proc(5)); on other systems than Linux they stay zero.
    fn measure_process(&self) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        let stat = read("stat");
        // The process name may contain spaces, so fields are counted after it. User and system time are the fields 14 and 15,
        // in ticks of 1/100 s.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let ticks: f64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        self.cpu.inc_by((ticks / 100.0 - self.cpu.get()).max(0.0));
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        self.memory.set(resident.and_then(|kib| kib.parse::<i64>().ok()).unwrap_or(0) * 1024);
    }
}

//! Metrics in the Prometheus exposition format, named after its conventions.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BrokerLabels {
    broker: String,
}

/// All metrics of the operator.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    issued: Family<CauseLabels, Counter>,
    broker_up: Family<BrokerLabels, Gauge>,
    drift_repaired: Family<BrokerLabels, Counter<u64, AtomicU64>>,
    requests: Family<RequestLabels, Counter>,
    leading: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("credence");
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles by controller and outcome", reconciles.clone());
        let issued = Family::default();
        registry.register("certificates_issued", "Certificates issued by cause", issued.clone());
        let broker_up = Family::default();
        registry.register("broker_up", "Whether the broker answers the operator", broker_up.clone());
        let drift_repaired = Family::default();
        registry.register(
            "drift_repaired",
            "Bindings that a broker had lost and that were put back",
            drift_repaired.clone(),
        );
        let requests = Family::default();
        registry.register(
            "kubernetes_requests",
            "Requests to the Kubernetes API by verb and HTTP status, 0 when there was no answer",
            requests.clone(),
        );
        let leading = Gauge::default();
        registry.register("leading", "Whether this process holds the lease and works", leading.clone());
        Self { registry, reconciles, issued, broker_up, drift_repaired, requests, leading }
    }
}

impl Metrics {
    /// Counts a reconcile.
    pub fn reconciled(&self, controller: &'static str, outcome: &'static str) {
        self.reconciles.get_or_create(&ReconcileLabels { controller, outcome }).inc();
    }

    /// Counts an issued certificate.
    pub fn issued(&self, cause: &str) {
        self.issued.get_or_create(&CauseLabels { cause: cause.to_owned() }).inc();
    }

    /// Counts a request to the Kubernetes API; the code is 0 when there was no answer.
    pub fn requested(&self, verb: &str, code: u16) {
        self.requests.get_or_create(&RequestLabels { verb: verb.to_owned(), code }).inc();
    }

    /// Says whether this process holds the lease.
    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// Says whether a broker answers.
    pub fn broker_up(&self, broker: &str, up: bool) {
        self.broker_up.get_or_create(&BrokerLabels { broker: broker.to_owned() }).set(i64::from(up));
    }

    /// Takes over how many bindings a session has put back, and says how many of them are news.
    #[must_use]
    pub fn repaired_since(&self, broker: &str, total: u64) -> u64 {
        let counter = self.drift_repaired.get_or_create(&BrokerLabels { broker: broker.to_owned() });
        let news = total.saturating_sub(counter.get());
        counter.inc_by(news);
        news
    }

    /// All metrics as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

//! The metrics of the webhook gateway, in the format `OpenMetrics`.

use std::collections::HashSet;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::audit::AuditRecord;
use super::outcome::Reason;
use crate::edge::front::FrontMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    /// `namespace/name`, so there are as many as webhooks; empty for paths that no webhook has.
    endpoint: String,
    direction: &'static str,
    result: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    watch: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The metrics of the webhook gateway.
pub struct Metrics {
    registry: Registry,
    /// Those of the front.
    pub front: FrontMetrics,
    deliveries: Family<DeliveryLabels, Counter>,
    durations: Family<ResultLabels, Histogram, fn() -> Histogram>,
    /// The webhooks that have series.
    counted: RwLock<HashSet<Box<str>>>,
    endpoints: Gauge,
    suppressed: Counter,
    interruptions: Family<WatchLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("credence_edge");
        let metrics = Self {
            front: FrontMetrics::register(&mut registry),
            deliveries: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_25, 2.0, 16))),
            counted: RwLock::default(),
            endpoints: Gauge::default(),
            suppressed: Counter::default(),
            interruptions: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "deliveries",
            "Deliveries by webhook, direction, result and reason",
            metrics.deliveries.clone(),
        );
        registry.register_with_unit(
            "delivery_duration",
            "Time from the request head to the answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("endpoints", "Webhooks that are served", metrics.endpoints.clone());
        registry.register(
            "audit_lines_suppressed",
            "Requests for no webhook that have no audit line, because there were too many",
            metrics.suppressed.clone(),
        );
        registry.register(
            "watch_interruptions",
            "Watches that were interrupted and restarted",
            metrics.interruptions.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts a request.
    pub fn delivery(&self, record: &AuditRecord) {
        let (result, reason) = (record.outcome.result.as_str(), record.outcome.reason.as_str());
        let endpoint = record.endpoint.as_deref().unwrap_or_default().to_owned();
        if !self.counted.read().contains(endpoint.as_str()) {
            self.counted.write().insert(endpoint.as_str().into());
        }
        let direction = record.direction.unwrap_or_default();
        self.deliveries.get_or_create(&DeliveryLabels { endpoint, direction, result, reason }).inc();
        self.durations.get_or_create(&ResultLabels { result }).observe(record.duration.as_secs_f64());
    }

    /// Removes the series of all webhooks but these: names of webhooks come and go, and there is no end of them.
    pub fn keep_only(&self, endpoints: &HashSet<&str>) {
        self.counted.write().retain(|endpoint| {
            let keep = endpoint.is_empty() || endpoints.contains(&**endpoint);
            if !keep {
                self.remove(endpoint);
            }
            keep
        });
    }

    fn remove(&self, endpoint: &str) {
        for reason in Reason::ALL {
            for direction in ["", "Inbound", "Outbound"] {
                let (result, reason) = (reason.verdict().as_str(), reason.as_str());
                self.deliveries.remove(&DeliveryLabels { endpoint: endpoint.to_owned(), direction, result, reason });
            }
        }
    }

    /// Counts requests that have no audit line.
    pub fn audit_lines_suppressed(&self, lines: u64) {
        self.suppressed.inc_by(lines);
    }

    /// Counts a watch that was interrupted.
    pub fn watch_interrupted(&self, watch: &'static str) {
        self.interruptions.get_or_create(&WatchLabels { watch }).inc();
    }

    /// Sets how many webhooks are served.
    pub fn endpoints(&self, count: usize) {
        self.endpoints.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The metrics as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

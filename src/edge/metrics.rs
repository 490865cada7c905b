//! What can be measured of the edge, in the format `OpenMetrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::audit::Attempt;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    /// `namespace/name`, so there are as many as endpoints; empty for paths that no endpoint has.
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoomLabels {
    room: &'static str,
}

/// All metrics of the edge.
pub struct Metrics {
    registry: Registry,
    attempts: Family<AttemptLabels, Counter>,
    durations: Family<ResultLabels, Histogram, fn() -> Histogram>,
    handshakes_failed: Counter,
    turned_away: Counter,
    unrecorded: Counter,
    endpoints: Gauge,
    certificate_expiry: Gauge,
    room: Family<RoomLabels, Gauge<f64, AtomicU64>>,
    interruptions: Family<WatchLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("credence_edge");
        let metrics = Self {
            attempts: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_25, 2.0, 16))),
            handshakes_failed: Counter::default(),
            turned_away: Counter::default(),
            unrecorded: Counter::default(),
            endpoints: Gauge::default(),
            certificate_expiry: Gauge::default(),
            room: Family::default(),
            interruptions: Family::default(),
            registry: Registry::default(),
        };
        registry.register("deliveries", "Attempts by webhook, direction, result and reason", metrics.attempts.clone());
        registry.register_with_unit(
            "delivery_duration",
            "Time from the request's head to the answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("handshakes_failed", "TLS handshakes that failed", metrics.handshakes_failed.clone());
        registry.register(
            "connections_turned_away",
            "Connections beyond the bounds for all or for one address",
            metrics.turned_away.clone(),
        );
        registry.register("audit_lines_lost", "Attempts that could not be put on record", metrics.unrecorded.clone());
        registry.register("endpoints", "Endpoints that are served", metrics.endpoints.clone());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate in force expires, in seconds since 1970; 0 before there is one",
            metrics.certificate_expiry.clone(),
        );
        registry.register_with_unit(
            "room_taken",
            "How much of the room for connections and for bodies is taken",
            Unit::Other("ratio".to_owned()),
            metrics.room.clone(),
        );
        registry.register(
            "watch_interruptions",
            "Watches that broke and were started again",
            metrics.interruptions.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts an attempt; `recorded` says whether its audit line was written.
    pub fn attempt(&self, attempt: &Attempt, recorded: bool) {
        let (result, reason) = (attempt.outcome.result.as_str(), attempt.outcome.reason.as_str());
        let endpoint = attempt.endpoint.clone().unwrap_or_default();
        let direction = attempt.direction.unwrap_or_default();
        self.attempts.get_or_create(&AttemptLabels { endpoint, direction, result, reason }).inc();
        self.durations.get_or_create(&ResultLabels { result }).observe(attempt.duration.as_secs_f64());
        if !recorded {
            self.unrecorded.inc();
        }
    }

    /// Counts a watch that broke.
    pub fn watch_interrupted(&self, watch: &'static str) {
        self.interruptions.get_or_create(&WatchLabels { watch }).inc();
    }

    /// Counts a handshake that failed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Counts a connection that was beyond the bounds.
    pub fn turned_away(&self) {
        self.turned_away.inc();
    }

    /// Notes how many endpoints are served.
    pub fn endpoints(&self, count: usize) {
        self.endpoints.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes when the certificate in force expires, in seconds since 1970.
    pub fn certificate_expires(&self, at: i64) {
        self.certificate_expiry.set(at);
    }

    /// Notes how much of the room is taken, of 1, and what for.
    pub fn room(&self, taken: impl IntoIterator<Item = (&'static str, f64)>) {
        for (room, taken) in taken {
            self.room.get_or_create(&RoomLabels { room }).set(taken);
        }
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

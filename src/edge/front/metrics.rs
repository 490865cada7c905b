//! The front's metrics, which every role of the edge has.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::output::lost_log_lines;
use crate::stalls::histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoomLabels {
    room: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SecretLabels {
    secret: String,
}

/// The front's metrics.
#[derive(Clone)]
pub struct FrontMetrics {
    /// How long workers were held by one step of work.
    pub(super) stalls: Histogram,
    handshakes_failed: Counter,
    turned_away: Counter,
    audit_lines_lost: Counter,
    certificate_expiry: Gauge,
    serving_certificate_expiry: Family<SecretLabels, Gauge>,
    quotas: Family<RoomLabels, Gauge<f64, AtomicU64>>,
}

impl Default for FrontMetrics {
    fn default() -> Self {
        Self {
            stalls: histogram(),
            handshakes_failed: Counter::default(),
            turned_away: Counter::default(),
            audit_lines_lost: Counter::default(),
            certificate_expiry: Gauge::default(),
            serving_certificate_expiry: Family::default(),
            quotas: Family::default(),
        }
    }
}

impl FrontMetrics {
    /// Metrics that a registry exports.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_with_unit(
            "worker_stall",
            "Steps of work that held a thread for a millisecond or longer, while nothing else on it went on",
            Unit::Seconds,
            metrics.stalls.clone(),
        );
        registry.register("handshakes_failed", "TLS handshakes that failed", metrics.handshakes_failed.clone());
        registry.register(
            "connections_turned_away",
            "Connections refused because of the limits for all or for one network",
            metrics.turned_away.clone(),
        );
        registry.register(
            "audit_lines_lost",
            "Attempts without an audit line, because too many lines were waiting to be written",
            metrics.audit_lines_lost.clone(),
        );
        registry.register("log_lines_lost", "Lines of the log that nobody took", lost_log_lines());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the edge's certificate expires, in seconds since 1970; 0 before one is loaded",
            metrics.certificate_expiry.clone(),
        );
        registry.register(
            "serving_certificate_expiry_timestamp_seconds",
            "When the certificate of this Secret that callers are shown expires, in seconds since 1970; 0 before it is loaded",
            metrics.serving_certificate_expiry.clone(),
        );
        registry.register_with_unit(
            "room_taken",
            "Used part of the limits for connections, bodies, deliveries, their history and audit lines that wait, 0 to 1",
            Unit::Other("ratio".to_owned()),
            metrics.quotas.clone(),
        );
        metrics
    }

    /// Counts a handshake that failed.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.inc();
    }

    /// Counts a connection that the limits refused.
    pub fn turned_away(&self) {
        self.turned_away.inc();
    }

    /// Counts an attempt without an audit line.
    pub fn audit_line_lost(&self) {
        self.audit_lines_lost.inc();
    }

    /// Sets when the loaded certificate expires, in seconds since 1970.
    pub fn certificate_expires(&self, at: i64) {
        self.certificate_expiry.set(at);
    }

    /// Sets when the certificate of a Secret that callers are shown expires, in seconds since 1970; 0 before it is loaded.
    pub fn serving_certificate_expires(&self, secret: &str, at: i64) {
        self.serving_certificate_expiry.get_or_create(&SecretLabels { secret: secret.to_owned() }).set(at);
    }

    /// Sets how much of a quota is used, 0 to 1.
    pub fn quota_used(&self, quota: &'static str, used: f64) {
        self.quotas.get_or_create(&RoomLabels { room: quota }).set(used);
    }
}

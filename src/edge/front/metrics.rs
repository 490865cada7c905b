//! The front's metrics, which every role of the edge has.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::output::lost_log_lines;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoomLabels {
    room: &'static str,
}

/// The front's metrics.
#[derive(Clone, Default)]
pub struct FrontMetrics {
    handshakes_failed: Counter,
    turned_away: Counter,
    audit_lines_lost: Counter,
    certificate_expiry: Gauge,
    quotas: Family<RoomLabels, Gauge<f64, AtomicU64>>,
}

impl FrontMetrics {
    /// Metrics that a registry exports.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("handshakes_failed", "TLS handshakes that failed", metrics.handshakes_failed.clone());
        registry.register(
            "connections_turned_away",
            "Connections refused because of the limits for all or for one address",
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
        registry.register_with_unit(
            "room_taken",
            "Used part of the limits for connections, for bodies and for audit lines that wait, 0 to 1",
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

    /// Sets how much of a quota is used, 0 to 1.
    pub fn quota_used(&self, quota: &'static str, used: f64) {
        self.quotas.get_or_create(&RoomLabels { room: quota }).set(used);
    }
}

//! The metrics of the token issuer, in the format `OpenMetrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::outcome::Reason;
use crate::edge::front::FrontMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    watch: &'static str,
}

/// The metrics of the token issuer.
pub struct Metrics {
    registry: Registry,
    /// Those of the front.
    pub front: FrontMetrics,
    requests: Family<RequestLabels, Counter>,
    issuers: Gauge,
    suppressed: Counter,
    interruptions: Family<WatchLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("credence_edge");
        let front = FrontMetrics::register(&mut registry);
        let (requests, issuers) = (Family::<RequestLabels, Counter>::default(), Gauge::default());
        let (suppressed, interruptions) = (Counter::default(), Family::<WatchLabels, Counter>::default());
        for reason in Reason::ALL {
            // From the beginning, so that a rate is known of each.
            drop(requests.get_or_create(&RequestLabels { reason: reason.as_str() }));
        }
        registry.register("token_requests", "Requests for tokens, by reason", requests.clone());
        registry.register("token_issuers", "Trust domains that tokens are issued for", issuers.clone());
        registry.register(
            "audit_lines_suppressed",
            "Requests of unknown clients that have no audit line, because there were too many",
            suppressed.clone(),
        );
        registry.register("watch_interruptions", "Watches that were interrupted and restarted", interruptions.clone());
        Self { registry, front, requests, issuers, suppressed, interruptions }
    }
}

impl Metrics {
    /// Counts a request.
    pub fn requested(&self, reason: Reason) {
        self.requests.get_or_create(&RequestLabels { reason: reason.as_str() }).inc();
    }

    /// Sets how many trust domains issue tokens.
    pub fn issuers(&self, count: usize) {
        self.issuers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts requests that have no audit line.
    pub fn audit_lines_suppressed(&self, lines: u64) {
        self.suppressed.inc_by(lines);
    }

    /// Counts a watch that was interrupted.
    pub fn watch_interrupted(&self, watch: &'static str) {
        self.interruptions.get_or_create(&WatchLabels { watch }).inc();
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

//! Gives back what nobody uses any more, and reports what was suppressed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::gateway::Gateway;

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Gives back the memory of rate limits and of the metrics of former webhooks, for ever.
pub async fn tidy_forever(gateway: &Gateway) {
    let mut seen = gateway.routes.load();
    loop {
        sleep(INTERVAL).await;
        let (now, routes) = (Instant::now(), gateway.routes.load());
        for active in routes.iter() {
            active.rate.forget_idle(now);
        }
        if !Arc::ptr_eq(&seen, &routes) {
            gateway.metrics.keep_only(&routes.iter().map(|active| &*active.route.endpoint).collect());
            seen = routes;
        }
        match gateway.unassigned.take_suppressed(now) {
            0 => {}
            lines => {
                gateway.metrics.audit_lines_suppressed(lines);
                tracing::warn!(lines, "suppressed audit lines about requests that are for no webhook");
            }
        }
    }
}

//! Gives back what nobody uses any more.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::gateway::Gateway;

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Gives back the memory of rate limits, for ever.
pub async fn tidy_forever(gateway: &Gateway) {
    loop {
        sleep(INTERVAL).await;
        let now = Instant::now();
        for active in gateway.routes.load().iter() {
            active.rate.forget_idle(now);
        }
    }
}

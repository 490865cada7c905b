//! How watches are requested, and how they are started again after an interruption.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Error, Event, ExponentialBackoff};

use super::health::Health;

/// For how long the API server keeps one watch open. A connection that died in silence is noticed little later.
const TIMEOUT: u32 = 60;
/// How long a watch that broke waits before it is started again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// After how long without a break the pauses begin anew.
const RESET: Duration = Duration::from_secs(30);

/// How every watch is requested.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(TIMEOUT)
}

/// Where interruptions of watches are reported.
#[derive(Clone)]
pub struct Interruptions {
    /// Counts them, by part.
    pub count: Arc<dyn Fn(&'static str) + Send + Sync>,
    /// Reports the ones that last.
    pub health: Arc<Health>,
}

impl Interruptions {
    /// The events of a watch without its errors: these are reported, and the watch is started again.
    pub fn retry_forever<T: Send, E: Stream<Item = Result<Event<T>, Error>> + Send>(
        self,
        part: &'static str,
        events: E,
    ) -> impl Stream<Item = Event<T>> + Send + use<T, E> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .with_jitter()
            .without_max_times();
        let pauses = ResetTimerBackoff::new(ExponentialBackoff::from(pauses), RESET);
        events.backoff(pauses).filter_map(move |event| {
            let event = match event {
                Ok(event) => Some(event),
                Err(error) => {
                    tracing::warn!(part, %error, "watch interrupted; retrying");
                    (self.count)(part);
                    self.health.failed(part, error.to_string(), Instant::now());
                    None
                }
            };
            std::future::ready(event)
        })
    }
}

//! How watches are requested, and how they are retried after an interruption.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Error, Event, ExponentialBackoff};

use super::answer;
use super::health::Health;

/// How long the API server keeps one watch open, in seconds. A connection that was lost without notice is detected soon after.
const WATCH_SECONDS: u32 = 60;
/// The first pause after an interruption.
const MIN_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after an interruption.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// After how long without an interruption the pauses begin again with the first one.
const RESET_AFTER: Duration = Duration::from_secs(30);

/// The parameters of every watch.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Receives the interruptions of watches.
#[derive(Clone)]
pub struct Interruptions {
    /// Counts them, by the part of the process.
    pub count: Arc<dyn Fn(&'static str) + Send + Sync>,
    /// Reports those that last.
    pub health: Arc<Health>,
}

impl Interruptions {
    /// The events of a watch without its errors: an error is reported, and the watch is retried.
    pub fn retry_forever<T: Send, E: Stream<Item = Result<Event<T>, Error>> + Send>(
        self,
        part: &'static str,
        events: E,
    ) -> impl Stream<Item = Event<T>> + Send + use<T, E> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(MIN_PAUSE)
            .with_max_delay(MAX_PAUSE)
            .with_jitter()
            .without_max_times();
        let pauses = ResetTimerBackoff::new(ExponentialBackoff::from(pauses), RESET_AFTER);
        events.backoff(pauses).filter_map(move |event| {
            let event = match event {
                Ok(event) => Some(event),
                Err(error) => {
                    let why = describe(&error);
                    tracing::warn!(part, error = why, "watch interrupted; retrying");
                    (self.count)(part);
                    self.health.failed(part, why, Instant::now());
                    None
                }
            };
            std::future::ready(event)
        })
    }
}

/// Why a watch was interrupted. Nothing of what the API server sent is repeated: it may be a part of a Secret.
fn describe(error: &Error) -> String {
    match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
            answer::describe(error)
        }
        Error::WatchError(status) => answer::describe(&kube::Error::Api(status.clone())),
        Error::NoResourceVersion => "the API server sent an object without a resource version".to_owned(),
    }
}

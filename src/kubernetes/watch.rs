//! How watches are requested, and how they are retried after an interruption.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::WatchParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::{Api, Client};

use super::answer;
use super::error::{Error, has_code};
use super::health::Health;

/// How long the API server keeps one watch open, in seconds. A connection that was lost without notice is detected soon after.
const WATCH_SECONDS: u32 = 60;
/// The first pause after an interruption.
const MIN_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after an interruption.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// After how long without an interruption the pauses begin again with the first one.
const RESET_AFTER: Duration = Duration::from_secs(30);

/// How many objects of tenants are listed at once. One may have a megabyte and a half, and is in memory several times.
const PAGE: u32 = 16;

/// The parameters of a watch.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// How objects that tenants write are listed, so that few of them are in memory at the same time, however large they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// One by one, as events of the watch (`sendInitialEvents`).
    Streamed,
    /// In small pages, where the API server has no streaming lists: before Kubernetes 1.34, unless the feature gate `WatchList` is on.
    Paged,
}

impl Listing {
    /// Asks the API server which it supports.
    ///
    /// # Errors
    /// What the API server answered instead.
    pub async fn supported(client: &Client) -> Result<Self, Error> {
        let (mut request, api) = (WatchParams::default().timeout(1), Api::<Namespace>::all(client.clone()));
        (request.send_initial_events, request.bookmarks) = (true, true);
        match api.watch_metadata(&request, "0").await {
            Ok(_) => Ok(Self::Streamed),
            Err(error) if has_code(&error, 400) || has_code(&error, 422) => Ok(Self::Paged),
            Err(error) => Err(Error::api("watch namespaces".to_owned())(error)),
        }
    }

    /// The parameters of a watch.
    #[must_use]
    pub fn config(self) -> watcher::Config {
        match self {
            Self::Streamed => config().streaming_lists(),
            Self::Paged => config().page_size(PAGE),
        }
    }
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
    pub fn retry_forever<T: Send, E: Stream<Item = Result<Event<T>, watcher::Error>> + Send>(
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
fn describe(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => answer::describe(error),
        watcher::Error::WatchError(status) => answer::describe(&kube::Error::Api(status.clone())),
        watcher::Error::NoResourceVersion => "the API server sent an object without a resource version".to_owned(),
    }
}

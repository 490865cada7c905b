//! How watches are requested, how they are retried after an interruption, and when everything is listed anew.
//!
//! A watch goes on from the version that it saw last. After a restore of etcd, versions are those of the past: such a watch waits
//! for what is newer than it saw, and knows objects that do not exist. A restore interrupts every watch, so after an interruption
//! everything is listed, and from time to time without one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::future::pending;
use futures::stream::unfold;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::WatchParams;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, sleep_until};

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
/// How long after a list everything is listed again, and by how much that is spread, so that watches take turns.
const RELIST: Duration = Duration::from_secs(600);
const RELIST_SPREAD: Duration = Duration::from_secs(120);

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
    /// The events of a watch without its errors: an error is reported, and the watch is opened again, which lists everything.
    pub fn retry_forever<T, E>(
        self,
        part: &'static str,
        open: impl Fn() -> E + Send,
    ) -> impl Stream<Item = Event<T>> + Send
    where
        T: Send,
        E: Stream<Item = Result<Event<T>, watcher::Error>> + Send,
    {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(MIN_PAUSE)
            .with_max_delay(MAX_PAUSE)
            .with_jitter()
            .without_max_times();
        let pauses = ResetTimerBackoff::new(ExponentialBackoff::from(pauses), RESET_AFTER);
        let watch = Watch { events: Box::pin(open()), open, pauses, relist_at: None, interruptions: self, part };
        unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) })
    }
}

/// A watch that is opened again and again.
struct Watch<E, F, B> {
    events: Pin<Box<E>>,
    open: F,
    pauses: B,
    /// When everything is listed again; `None` before it was listed.
    relist_at: Option<Instant>,
    interruptions: Interruptions,
    part: &'static str,
}

impl<E, F: Fn() -> E, B: Backoff> Watch<E, F, B> {
    async fn next<T>(&mut self) -> Event<T>
    where
        E: Stream<Item = Result<Event<T>, watcher::Error>>,
    {
        loop {
            let relist_at = self.relist_at;
            let relist_due = async {
                match relist_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                event = self.events.next() => match event {
                    Some(Ok(event)) => {
                        if matches!(event, Event::InitDone) {
                            self.relist_at = Some(Instant::now() + RELIST + spread());
                        }
                        return event;
                    }
                    Some(Err(error)) => self.interrupted(&describe(&error)).await,
                    None => self.interrupted("the watch ended").await,
                },
                () = relist_due => self.reopen(),
            }
        }
    }

    async fn interrupted(&mut self, error: &str) {
        let (part, Interruptions { count, health }) = (self.part, &self.interruptions);
        tracing::warn!(part, error, "watch interrupted; retrying");
        count(part);
        health.failed(part, error.to_owned(), Instant::now().into_std());
        sleep(self.pauses.next().unwrap_or(MAX_PAUSE)).await;
        self.reopen();
    }

    fn reopen(&mut self) {
        self.events = Box::pin((self.open)());
        self.relist_at = None;
    }
}

/// A part of [`RELIST_SPREAD`] by chance.
fn spread() -> Duration {
    let chance = RandomState::new().build_hasher().finish();
    Duration::from_secs(chance % RELIST_SPREAD.as_secs())
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::stream;
    use parking_lot::Mutex;

    use kube::runtime::watcher::Error;

    use super::*;

    type Opened = VecDeque<Result<Event<&'static str>, Error>>;

    /// Opens one watch after the other. Each goes on for ever after its events.
    async fn follow(opened: Vec<Opened>, count: usize) -> (Vec<String>, Duration) {
        let (opened, began) = (Mutex::new(VecDeque::from(opened)), Instant::now());
        let interruptions = Interruptions { count: Arc::new(|_| {}), health: Arc::default() };
        let open = || stream::iter(opened.lock().pop_front().unwrap()).chain(stream::pending());
        let events = interruptions.retry_forever("part", open).take(count);
        let events: Vec<Event<&str>> = events.collect().await;
        (events.iter().map(|event| format!("{event:?}")).collect(), began.elapsed())
    }

    fn list(object: &'static str) -> Opened {
        [Ok(Event::Init), Ok(Event::InitApply(object)), Ok(Event::InitDone)].into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_watch_lists_everything() {
        let mut interrupted = list("old");
        interrupted.push_back(Err(Error::NoResourceVersion));
        let (events, took) = follow(vec![interrupted, list("new")], 6).await;
        assert_eq!(events[4], r#"InitApply("new")"#, "{events:?}");
        assert!(took < MAX_PAUSE, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_without_interruptions_lists_everything_from_time_to_time() {
        let (events, took) = follow(vec![list("one"), list("two"), list("three")], 9).await;
        assert_eq!((&*events[4], &*events[7]), (r#"InitApply("two")"#, r#"InitApply("three")"#), "{events:?}");
        assert!((2 * RELIST..2 * (RELIST + RELIST_SPREAD)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_takes_long_is_not_begun_again() {
        let mut slow = list("slow");
        let last = slow.split_off(2);
        let opened = Mutex::new(Some(stream::iter(slow).chain(stream::once(async move {
            sleep(3 * RELIST).await;
            last.into_iter().next().unwrap()
        }))));
        let interruptions = Interruptions { count: Arc::new(|_| {}), health: Arc::default() };
        let events = interruptions.retry_forever("part", || opened.lock().take().unwrap()).take(3);
        assert_eq!(events.collect::<Vec<_>>().await.len(), 3);
    }
}

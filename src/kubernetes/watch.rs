//! Watches: one per kind. An object is in its store before anybody is told of it, so whoever is told can look it up.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt, pin_mut};
use kube::Resource;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Error, Event, ExponentialBackoff};

use super::health::Health;
use crate::metrics::Metrics;

/// For how long the API server keeps one watch open. A connection that died in silence is noticed little later.
const LASTS: u32 = 60;
/// How long a watch that broke waits before it is started again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// After how long without a break the pauses begin anew.
const CALM: Duration = Duration::from_secs(30);

/// How every watch is asked for.
#[must_use]
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(LASTS)
}

/// Where it is told that a watch broke.
#[derive(Clone)]
pub struct Interruptions {
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// Knows whether they last.
    pub health: Arc<Health>,
}

impl Interruptions {
    /// The events of a watch without its errors, which are told, and after which it is started again.
    pub fn outlive<T: Send>(
        self,
        part: &'static str,
        events: impl Stream<Item = Result<Event<T>, Error>> + Send,
    ) -> impl Stream<Item = Event<T>> + Send {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .with_jitter()
            .without_max_times();
        let pauses = ResetTimerBackoff::new(ExponentialBackoff::from(pauses), CALM);
        events.backoff(pauses).filter_map(move |event| {
            let event = match event {
                Ok(event) => Some(event),
                Err(error) => {
                    tracing::warn!(part, %error, "watch interrupted; it is started again");
                    self.metrics.interrupted(part);
                    self.health.failed(part, error.to_string(), Instant::now());
                    None
                }
            };
            std::future::ready(event)
        })
    }
}

/// Follows a watch until it ends, which it does not by itself: keeps the store, and calls `changed` for every object
/// that was added, changed or removed.
pub async fn follow<K>(
    events: impl Stream<Item = Event<K>> + Send,
    writer: Writer<K>,
    mut changed: impl FnMut(&ObjectRef<K>) + Send,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let store: Store<K> = writer.as_reader();
    let events = events.map(Ok::<_, Error>).modify(forget_bookkeeping).reflect(writer);
    pin_mut!(events);
    let mut before: Vec<Arc<K>> = Vec::new();
    while let Some(Ok(event)) = events.next().await {
        match event {
            Event::Apply(object) | Event::Delete(object) => changed(&ObjectRef::from_obj(&object)),
            // During a list the store still shows the old state; what vanished meanwhile is only known at its end.
            Event::Init => before = store.state(),
            Event::InitApply(_) => {}
            Event::InitDone => {
                let after = store.state();
                let mut touched: Vec<ObjectRef<K>> =
                    before.drain(..).chain(after).map(|object| ObjectRef::from_obj(object.as_ref())).collect();
                touched.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
                touched.dedup();
                touched.iter().for_each(&mut changed);
            }
        }
    }
}

/// Drops what no decision looks at and what makes up most of an object in memory.
fn forget_bookkeeping<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = object.meta_mut().annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

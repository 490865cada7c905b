//! The loop of a controller: names wait in a queue, reconciles run beside each other, each object has its own backoff,
//! and there is one place for reporting.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::display_name;
use super::error::{Class, Error};
use super::queue::{Lane, Queue};
use crate::api::{Conditions, Reason};
use crate::metrics::Metrics;

/// Objects as the watches give them: one that cannot be read stalls nobody else.
pub type Guarded<K> = DeserializeGuard<K>;

type Key<K> = Arc<ObjectRef<Guarded<K>>>;
type LaneOf<K> = Box<dyn Fn(&Key<K>) -> Lane + Send + Sync>;

struct Shared<K: Resource<DynamicType = ()> + 'static> {
    queue: Mutex<Queue<Key<K>>>,
    lane: LaneOf<K>,
    gather: Duration,
    wake: Notify,
}

/// Asks a controller to look at an object again. Asking twice costs nothing.
pub struct Trigger<K: Resource<DynamicType = ()> + 'static>(Arc<Shared<K>>);

impl<K: Resource<DynamicType = ()> + 'static> Clone for Trigger<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Trigger<K> {
    /// A trigger whose controller works on `workers` objects of each group at once. What is asked for waits for
    /// `gather`, so that many reasons to look make one look.
    #[must_use]
    pub fn new(
        workers: usize,
        gather: Duration,
        lane: impl Fn(&ObjectRef<Guarded<K>>) -> Lane + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue::new(workers)),
            lane: Box::new(move |key| lane(key)),
            gather,
            wake: Notify::new(),
        }))
    }

    /// Asks for an object of a namespace, or of the cluster.
    pub fn fire(&self, namespace: Option<&str>, name: &str) {
        let mut reference = ObjectRef::new_with(name, ());
        reference.namespace = namespace.map(ToOwned::to_owned);
        let now = Instant::now();
        self.queue().ask(Arc::new(reference), &self.0.lane, now + self.0.gather, now);
        self.0.wake.notify_one();
    }

    /// Asks for an object by reference.
    pub fn fire_ref(&self, reference: &ObjectRef<Guarded<K>>) {
        self.fire(reference.namespace.as_deref(), &reference.name);
    }

    /// How many objects wait, and for how long the oldest has.
    #[must_use]
    pub fn standing(&self) -> (usize, Duration) {
        let queue = self.queue();
        (queue.depth(), queue.oldest(Instant::now()))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Key<K>>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When an object wants to be looked at next, if nothing changes before.
pub type Next = Option<Duration>;

/// What came of a reconcile.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// When it is to be looked at next.
    pub next: Next,
    reason: &'static str,
}

impl Done {
    /// The object stands as its conditions say.
    #[must_use]
    pub fn with(conditions: &Conditions, next: Next) -> Self {
        Self { next, reason: conditions.verdict().map_or("", |(reason, _)| reason.as_str()) }
    }

    /// Nothing is left to do for an object that is going.
    #[must_use]
    pub fn gone() -> Self {
        Self { next: None, reason: "Deleted" }
    }

    /// The object waits for the reason given.
    #[must_use]
    pub fn waiting(reason: Reason, next: Duration) -> Self {
        Self { next: Some(next), reason: reason.as_str() }
    }
}

/// Runs a controller until `stop` turns true and the work in hand is done.
pub async fn run<K, F>(
    name: &'static str,
    store: Store<Guarded<K>>,
    trigger: Trigger<K>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
    reconcile: impl Fn(Arc<K>) -> F + Send + Sync + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Done, Error>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut reports = Reports { name, metrics, failures: HashMap::new() };
    loop {
        let wake_at = {
            let mut queue = trigger.queue();
            while let Some((key, _)) = queue.next(&trigger.0.lane, Instant::now()) {
                let found = store.get(&key);
                let work = found.as_ref().and_then(|guarded| guarded.0.as_ref().ok()).map(|object| {
                    let work = reconcile(Arc::new(object.clone()));
                    // A defect in one reconcile must not end the controller.
                    AssertUnwindSafe(work).catch_unwind()
                });
                running.spawn(async move {
                    let began = Instant::now();
                    let outcome = match work {
                        None => None,
                        Some(work) => {
                            Some(work.await.unwrap_or_else(|_| Err(Error::Bug("a reconcile panicked".into()))))
                        }
                    };
                    (key, found, outcome, began.elapsed())
                });
            }
            queue.wake_at()
        };
        let alarm = async {
            match wake_at {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = trigger.0.wake.notified() => {}
            () = alarm => {}
            Some(ended) = running.join_next() => {
                // It cannot panic, and nobody aborts it.
                let Ok((key, found, outcome, took)) = ended else { continue };
                let next = reports.report(&key, found.as_deref(), outcome, took);
                let now = Instant::now();
                trigger.queue().done(&key, next.map(|next| now + next), &trigger.0.lane, now);
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    while running.join_next().await.is_some() {}
}

/// How often each object has failed in a row, and where that is told.
struct Reports<K: Resource<DynamicType = ()> + 'static> {
    name: &'static str,
    metrics: Arc<Metrics>,
    failures: HashMap<Key<K>, u32>,
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + 'static> Reports<K> {
    /// Tells of one reconcile, and says when the object is to be looked at next.
    fn report(
        &mut self,
        key: &Key<K>,
        found: Option<&Guarded<K>>,
        outcome: Option<Result<Done, Error>>,
        took: Duration,
    ) -> Next {
        let controller = self.name;
        match (found.map(|guarded| &guarded.0), outcome) {
            (Some(Ok(_)), Some(Ok(done))) => {
                self.failures.remove(key);
                self.metrics.reconciled(controller, "ok", done.reason, took);
                done.next
            }
            (Some(Ok(object)), Some(Err(error))) => {
                let class = error.class();
                let count = self.failures.entry(key.clone()).or_insert(0);
                let delay = backoff(class, *count, seed(object));
                *count = count.saturating_add(1);
                self.metrics.reconciled(controller, class.as_str(), error.label(), took);
                let object = display_name(object);
                if class == Class::Bug {
                    tracing::error!(controller, object, %error, "reconcile failed");
                } else {
                    tracing::warn!(controller, object, %error, retry_in = ?delay, "reconcile failed");
                }
                Some(delay)
            }
            (Some(Err(invalid)), _) => {
                tracing::error!(controller, object = %key, error = %invalid.error,
                    "the stored object does not fit its schema; it is left alone until it is corrected");
                self.metrics.reconciled(controller, "invalid", "Schema", took);
                None
            }
            // It is gone.
            _ => {
                self.failures.remove(key);
                None
            }
        }
    }
}

/// Half a second doubled up to a minute, and shifted by the object so that many do not come back at once.
fn backoff(class: Class, failures: u32, seed: u64) -> Duration {
    let base = match class {
        Class::Retry => 500,
        Class::NeedsUser | Class::Bug => 5_000,
    };
    let delay = (base * 2_u64.saturating_pow(failures.min(10))).min(60_000);
    Duration::from_millis(delay + delay * (seed % 100) / 400)
}

/// A number that stays with an object: it spreads what would otherwise happen to all objects at once.
pub fn seed<K: Resource>(object: &K) -> u64 {
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    // FNV-1a: stable between versions of the compiler, unlike the standard hasher.
    uid.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_a_bound() {
        let delays: Vec<u128> = (0..20).map(|count| backoff(Class::Retry, count, 0).as_millis()).collect();
        assert_eq!(&delays[..3], [500, 1000, 2000]);
        assert_eq!(delays[19], 60_000);
        assert!(backoff(Class::Retry, u32::MAX, 99) < Duration::from_secs(76));
    }
}

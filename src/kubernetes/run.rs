//! The loop of a controller: names wait in a queue, reconciles run concurrently, every object has its own backoff, and outcomes
//! are reported in one place.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use kube::Resource;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::{Instrument, info_span};

use super::error::{Class, Error};
use super::guard::SchemaError;
use super::queue::{Lane, Queue};
use super::store::Store;
use crate::api::{Conditions, Reason};
use crate::domain::name::Name;
use crate::domain::text::foreign;
use crate::metrics::Metrics;

type LaneOf = Box<dyn Fn(&Name) -> Lane + Send + Sync>;

struct Shared {
    queue: Mutex<Queue<Name>>,
    lane: LaneOf,
    debounce: Duration,
    wake: Notify,
}

/// Queues objects for a controller. Queueing an object twice has no further effect.
#[derive(Clone)]
pub struct Trigger(Arc<Shared>);

impl Trigger {
    /// A trigger for a controller with this number of workers for each group. An object waits for `debounce`, so that several
    /// changes within that time lead to one reconcile.
    #[must_use]
    pub fn new(workers: usize, debounce: Duration, lane: impl Fn(&Name) -> Lane + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue::new(workers)),
            lane: Box::new(lane),
            debounce,
            wake: Notify::new(),
        }))
    }

    /// Queues an object. One that failed waits until its pause is over.
    pub fn fire(&self, name: &Name) {
        let now = Instant::now();
        self.queue().push(name.clone(), &self.0.lane, now + self.0.debounce, now);
        self.0.wake.notify_one();
    }

    /// Queues an object that may succeed now although it failed before: it is another one, or what refused it is.
    pub fn fire_afresh(&self, name: &Name) {
        self.queue().release(name);
        self.fire(name);
    }

    /// How many objects wait, and how long the oldest has waited.
    #[must_use]
    pub fn backlog(&self) -> (usize, Duration) {
        let queue = self.queue();
        (queue.depth(), queue.oldest(Instant::now()))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Name>> {
        self.0.queue.lock()
    }
}

/// After which time an object is reconciled again if nothing changes before; `None` for never.
pub type Next = Option<Duration>;

/// The outcome of a reconcile.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// After which time the object is reconciled again.
    pub next: Next,
    reason: &'static str,
    /// Whether something outside refused what was tried, so that the next attempt waits for its time.
    was_refused: bool,
}

impl Done {
    /// The conditions of the object are the outcome.
    #[must_use]
    pub fn with(conditions: &Conditions, next: Next) -> Self {
        let reason = conditions.verdict().map_or("", |(reason, _)| reason.as_str());
        Self { next, reason, was_refused: conditions.unmet_reasons().any(Reason::is_refused_attempt) }
    }

    /// The object was deleted, or will be, and nothing is left to do.
    #[must_use]
    pub fn gone() -> Self {
        Self { next: None, reason: "Deleted", was_refused: false }
    }
}

/// How many times in a row a reconcile fails with an error that may be temporary until the status of the object says so.
const PATIENCE: u32 = 3;

/// What a controller does with an object.
pub trait Reconciler<K>: Clone + Send + Sync + 'static {
    /// Brings it to what its spec says.
    fn reconcile(&self, object: Arc<K>) -> impl Future<Output = Result<Done, Error>> + Send;

    /// Says in its status that this failed, and why.
    fn report_failure(&self, object: &K, error: &Error) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Reconciles an object. No error bypasses its status: one that a person has to act on is in it at once, one that may be temporary
/// when it does not pass.
async fn attempt<K, R: Reconciler<K>>(reconciler: R, object: Arc<K>, failures: u32) -> Result<Done, Error> {
    // A defect in one reconcile must not end the controller.
    let ended = AssertUnwindSafe(reconciler.reconcile(object.clone())).catch_unwind().await;
    let outcome = ended.unwrap_or_else(|_| Err(Error::Bug("a reconcile panicked".into())));
    if let Err(error) = &outcome
        && (error.class() != Class::Retry || failures + 1 >= PATIENCE)
        && let Err(error) = reconciler.report_failure(&object, error).await
    {
        tracing::warn!(%error, detail = error.detail(), "failed to report in the status that a reconcile failed");
    }
    outcome
}

/// Runs a controller until `stop` becomes true and the running reconciles have ended.
pub async fn run<K, R: Reconciler<K>>(
    name: &'static str,
    store: Store<K>,
    trigger: Trigger,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
    reconciler: R,
) where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let mut running = JoinSet::new();
    let mut reports = Reports { name, metrics, failures: HashMap::new() };
    loop {
        let wake_at = {
            let mut queue = trigger.queue();
            while let Some((key, _)) = queue.pop(&trigger.0.lane, Instant::now()) {
                let (store, reconciler) = (store.clone(), reconciler.clone());
                let failures = reports.failures.get(&key).copied().unwrap_or_default();
                running.spawn(async move {
                    let began = Instant::now();
                    let found = store.find(&key).map(|object| object.map(Arc::new));
                    let outcome = match &found {
                        Some(Ok(object)) => {
                            let generation = object.meta().generation;
                            let (namespace, object_name) = (&*key.namespace, &*key.name);
                            let span =
                                info_span!("reconcile", controller = name, namespace, name = object_name, generation);
                            Some(attempt(reconciler, object.clone(), failures).instrument(span).await)
                        }
                        _ => None,
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
                // A task neither panics nor is it aborted.
                let Ok((key, found, outcome, took)) = ended else { continue };
                let (next, is_held_back) = reports.report(&key, found.as_ref(), outcome, took);
                let now = Instant::now();
                let mut queue = trigger.queue();
                match next.map(|next| now + next) {
                    Some(until) if is_held_back => queue.failed(&key, until, &trigger.0.lane, now),
                    then => queue.done(&key, then, &trigger.0.lane, now),
                }
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    while running.join_next().await.is_some() {}
}

/// Reports outcomes, and counts the consecutive failures of each object.
struct Reports {
    name: &'static str,
    metrics: Arc<Metrics>,
    failures: HashMap<Name, u32>,
}

impl Reports {
    /// Reports one outcome, and returns after which time the object is reconciled again, and whether it is held back until then.
    fn report<K: Resource>(
        &mut self,
        key: &Name,
        found: Option<&Result<Arc<K>, SchemaError>>,
        outcome: Option<Result<Done, Error>>,
        took: Duration,
    ) -> (Next, bool) {
        let controller = self.name;
        match (found, outcome) {
            (Some(Ok(_)), Some(Ok(done))) => {
                self.failures.remove(key);
                self.metrics.reconciled(controller, "ok", done.reason, took);
                (done.next, done.was_refused)
            }
            (Some(Ok(object)), Some(Err(error))) => {
                let class = error.class();
                let count = self.failures.entry(key.clone()).or_insert(0);
                let delay = backoff(class, *count, seed(object.as_ref()));
                *count = count.saturating_add(1);
                self.metrics.reconciled(controller, class.as_str(), error.label(), took);
                let (namespace, name, reason, detail) = (&*key.namespace, &*key.name, error.label(), error.detail());
                let retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                if class == Class::Bug {
                    tracing::error!(controller, namespace, name, reason, %error, detail, retry_in_ms, "reconcile failed");
                } else {
                    tracing::warn!(controller, namespace, name, reason, %error, detail, retry_in_ms, "reconcile failed");
                }
                // Nothing was tried for an object that another one keeps waiting, and its correction is noticed.
                (Some(delay), !matches!(error, Error::Unreadable { .. }))
            }
            (Some(Err(error)), _) => {
                tracing::error!(
                    controller,
                    namespace = &*key.namespace,
                    name = &*key.name,
                    error = %foreign(error),
                    "object does not match its schema; ignoring it until it is corrected"
                );
                self.metrics.reconciled(controller, "invalid", "Schema", took);
                (None, false)
            }
            // It was deleted.
            _ => {
                self.failures.remove(key);
                (None, false)
            }
        }
    }
}

/// The pause after a failure: half a second (five if a person has to act), doubled up to a minute, and longer by up to a quarter
/// depending on the object, so that many objects do not retry at the same time.
fn backoff(class: Class, failures: u32, seed: u64) -> Duration {
    let base = match class {
        Class::Retry => 500,
        Class::NeedsUser | Class::Bug => 5_000,
    };
    let delay = (base * 2_u64.saturating_pow(failures.min(10))).min(60_000);
    Duration::from_millis(delay + delay * (seed % 100) / 400)
}

/// A stable number for an object. It spreads events that would otherwise happen to all objects at the same time.
pub fn seed<K: Resource>(object: &K) -> u64 {
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    // FNV-1a: stable across compiler versions, unlike the standard hasher.
    uid.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_up_to_a_limit() {
        let delays: Vec<u128> = (0..20).map(|count| backoff(Class::Retry, count, 0).as_millis()).collect();
        assert_eq!(&delays[..3], [500, 1000, 2000]);
        assert_eq!(delays[19], 60_000);
        assert!(backoff(Class::Retry, u32::MAX, 99) < Duration::from_secs(76));
    }
}

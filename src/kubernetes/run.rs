//! The loop of a controller: a queue of names in, reconciles out, with backoff per object and one place for reporting.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;

use super::display_name;
use super::error::{Class, Error};
use crate::metrics::Metrics;

/// Objects as the watches give them: one that cannot be read stalls nobody else.
pub type Guarded<K> = DeserializeGuard<K>;

/// Asks a controller to look at an object again. Asking twice costs nothing.
pub struct Trigger<K: Resource<DynamicType = ()> + 'static>(mpsc::UnboundedSender<ObjectRef<Guarded<K>>>);

impl<K: Resource<DynamicType = ()> + 'static> Clone for Trigger<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The other end of a [`Trigger`].
pub type Queue<K> = mpsc::UnboundedReceiver<ObjectRef<Guarded<K>>>;

impl<K: Resource<DynamicType = ()> + 'static> Trigger<K> {
    /// A trigger and its queue.
    #[must_use]
    pub fn new() -> (Self, Queue<K>) {
        let (sender, receiver) = mpsc::unbounded();
        (Self(sender), receiver)
    }

    /// Asks for an object of a namespace, or of the cluster.
    pub fn fire(&self, namespace: Option<&str>, name: &str) {
        let mut reference = ObjectRef::<Guarded<K>>::new_with(name, ());
        reference.namespace = namespace.map(ToOwned::to_owned);
        // A closed queue means that the operator is stopping.
        let _ = self.0.unbounded_send(reference);
    }

    /// Asks for an object by reference.
    pub fn fire_ref(&self, reference: &ObjectRef<Guarded<K>>) {
        let _ = self.0.unbounded_send(reference.clone());
    }
}

/// What a reconcile asks for next.
pub type Next = Option<Duration>;

/// How often each object has failed in a row.
type Failures<K> = Mutex<HashMap<ObjectRef<Guarded<K>>, u32>>;

type Reconcile<'a> = Pin<Box<dyn Future<Output = Result<Next, Error>> + Send + 'a>>;

/// Runs a controller until `stop` turns true and the work in hand is done.
pub async fn run<K>(
    name: &'static str,
    store: Store<Guarded<K>>,
    queue: Queue<K>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
    config: Config,
    reconcile: impl Fn(Arc<K>) -> Reconcile<'static> + Send + Sync + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let failures: Failures<K> = Mutex::default();
    let requests = queue
        .map(Ok::<_, std::convert::Infallible>)
        .take_until(Box::pin(async move { _ = stop.wait_for(|stop| *stop).await }));
    let context = Arc::new((failures, metrics, reconcile));
    let reconciler = move |guarded: Arc<Guarded<K>>, context: Arc<_>| {
        Box::pin(reconcile_one(name, guarded, context)) as Pin<Box<dyn Future<Output = Result<Action, Error>> + Send>>
    };
    // Errors are turned into a delayed action before they reach the runtime.
    let unreachable = |_, _: &Error, _| Action::await_change();
    applier(reconciler, unreachable, context, store, requests, config).for_each(|_| async {}).await;
}

async fn reconcile_one<K, F>(
    name: &'static str,
    guarded: Arc<Guarded<K>>,
    context: Arc<(Failures<K>, Arc<Metrics>, F)>,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Fn(Arc<K>) -> Reconcile<'static>,
{
    let (failures, metrics, reconcile) = context.as_ref();
    let reference = ObjectRef::from_obj(guarded.as_ref());
    let object = match &guarded.0 {
        Ok(object) => Arc::new(object.clone()),
        Err(invalid) => {
            tracing::error!(controller = name, object = %reference, error = %invalid.error,
                "the stored object does not fit its schema; it is left alone until it is corrected");
            metrics.reconciled(name, "invalid");
            return Ok(Action::await_change());
        }
    };
    let outcome = reconcile(object.clone()).await;
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(next) => {
            failures.remove(&reference);
            metrics.reconciled(name, "ok");
            Ok(next.map_or_else(Action::await_change, Action::requeue))
        }
        Err(error) => {
            let class = error.class();
            let count = failures.entry(reference).or_insert(0);
            let delay = backoff(class, *count, seed(&*object));
            *count = count.saturating_add(1);
            metrics.reconciled(name, class.as_str());
            let object = display_name(&*object);
            if class == Class::Bug {
                tracing::error!(controller = name, object, %error, "reconcile failed");
            } else {
                tracing::warn!(controller = name, object, %error, retry_in = ?delay, "reconcile failed");
            }
            Ok(Action::requeue(delay))
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

//! The registered kinds: their watches, queues, readiness and gauges follow from the registration. It knows no kind.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use kube::runtime::watcher::watcher;
use kube::{Api, Resource};
use parking_lot::RwLock;
use tokio::task::JoinSet;

use super::shared::handle::{Handle, Wake};
use super::shared::kind::{Controller, ManagedKind};
use super::shared::parts::Parts;
use super::shared::signal::{Signal, Signals};
use super::wakes::Table;
use crate::api::{Kind, KindName, Reason};
use crate::domain::name::ObjectRef;
use crate::kubernetes::error::Error;
use crate::kubernetes::guard::Guarded;
use crate::kubernetes::health::Health;
use crate::kubernetes::run::{Done, Reconciler, run};
use crate::kubernetes::store::Change;
use crate::kubernetes::watch::Interruptions;
use crate::metrics::Metrics;
use crate::stalls::measured;

/// Turns true when the operator is to stop.
pub type StopSignal = tokio::sync::watch::Receiver<bool>;

/// Work that goes on until it is dropped.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

type Waker = Box<dyn Fn(&Signal) + Send + Sync>;

/// What is called with every signal: one function for each registered kind, which asks the table and queues its objects.
#[derive(Clone, Default)]
pub struct Wakers(Arc<RwLock<Vec<Waker>>>);

impl Wakers {
    /// Signals that reach every kind that is registered.
    #[must_use]
    pub fn signals(&self) -> Signals {
        let wakers = self.clone();
        Signals::new(move |signal| wakers.0.read().iter().for_each(|wake| wake(&signal)))
    }

    fn add<K: ManagedKind>(&self, table: Table, handle: Handle<K>) {
        let wake = move |signal: &Signal| match table.wakes(K::KIND, signal) {
            Wake::Nobody => {}
            wake => handle.wake(wake, signal.gives_another_chance()),
        };
        self.0.write().push(Box::new(wake));
    }
}

/// How many objects of a kind have `Ready` with a value and a reason.
pub type Counts = HashMap<(&'static str, String, String), i64>;

/// A kind with its controller, whatever kind it is.
trait Registered: Send + Sync {
    fn kind(&self) -> KindName;
    fn starts_first(&self) -> bool;
    /// Follows the objects of the kind for ever.
    fn watch(&self, interruptions: Interruptions) -> Work;
    /// Waits until all objects were listed once.
    fn listed(&self) -> Work;
    /// Reconciles every object once.
    fn reconcile_all(&self) -> Work;
    /// Runs the controller until `stop` turns true and its work in hand is done.
    fn run(&self, stop: StopSignal) -> Work;
    /// Sets the gauges that cost little.
    fn measure(&self, metrics: &Metrics);
    /// Counts object by object.
    fn count(&self, metrics: &Metrics, counts: &mut Counts, now: Timestamp);
}

struct Entry<C: Controller> {
    controller: Arc<C>,
    handle: Handle<C::Kind>,
    parts: Parts,
}

impl<C: Controller> Entry<C> {
    /// Everything that follows from a change: indexes and claims first, then the object itself, then those that depend
    /// on it.
    fn changed(controller: &C, handle: &Handle<C::Kind>, parts: &Parts, change: &Change<C::Kind>) {
        handle.index(change);
        handle.changed(change);
        controller.remember(change);
        let object = ObjectRef { kind: C::Kind::KIND, name: change.name.clone() };
        let versions = (change.before.as_ref(), change.after.as_ref());
        for other in parts.claims.update(&object, versions, ManagedKind::claims) {
            parts.signals.emit(Signal::ClaimsChanged(other));
        }
        for signal in C::Kind::signals(change) {
            parts.signals.emit(signal);
        }
    }
}

/// A controller, and where it reports that it failed.
struct Reporting<C: Controller> {
    controller: Arc<C>,
    handle: Handle<C::Kind>,
    metrics: Arc<Metrics>,
}

impl<C: Controller> Clone for Reporting<C> {
    fn clone(&self) -> Self {
        Self { controller: self.controller.clone(), handle: self.handle.clone(), metrics: self.metrics.clone() }
    }
}

impl<C: Controller> Reconciler<C::Kind> for Reporting<C> {
    async fn reconcile(&self, object: Arc<C::Kind>) -> Result<Done, Error> {
        let (controller, metrics) = (C::Kind::KIND.controller(), &self.metrics);
        measured(self.controller.reconcile(object), |held| metrics.held(controller, held)).await
    }

    async fn report_failure(&self, object: &C::Kind, error: &Error) -> Result<(), Error> {
        self.handle.report_failure(object, error).await
    }
}

impl<C: Controller> Registered for Entry<C> {
    fn kind(&self) -> KindName {
        C::Kind::KIND
    }

    fn starts_first(&self) -> bool {
        C::Kind::STARTS_FIRST
    }

    fn watch(&self, interruptions: Interruptions) -> Work {
        let (controller, handle, parts) = (self.controller.clone(), self.handle.clone(), self.parts.clone());
        let api: Api<Guarded<C::Kind>> = Api::all(parts.client.clone());
        let (scope, config) = (parts.settings.scope.clone(), parts.listing.config());
        let events = interruptions.retry_forever(C::Kind::KIND.controller(), move || {
            scope.filter(watcher(api.clone(), config.clone()), |object| object.meta().namespace.as_deref())
        });
        let (store, metrics) = (handle.store().clone(), parts.metrics.clone());
        let following = store.follow(events, move |change| Self::changed(&controller, &handle, &parts, &change));
        Box::pin(measured(following, move |held| metrics.held(C::Kind::KIND.controller(), held)))
    }

    fn listed(&self) -> Work {
        let store = self.handle.store().clone();
        Box::pin(async move { store.wait_until_listed().await })
    }

    fn reconcile_all(&self) -> Work {
        let (controller, handle) = (self.controller.clone(), self.handle.clone());
        Box::pin(async move {
            let objects: Vec<_> = handle.store().valid(None).map(Arc::new).collect();
            // An error is reported when the controller comes to the object, a moment later.
            join_all(objects.into_iter().map(|object| controller.reconcile(object))).await;
        })
    }

    fn run(&self, stop: StopSignal) -> Work {
        let (store, trigger) = (self.handle.store().clone(), self.handle.trigger().clone());
        let metrics = self.parts.metrics.clone();
        let reconciler =
            Reporting { controller: self.controller.clone(), handle: self.handle.clone(), metrics: metrics.clone() };
        Box::pin(run(C::Kind::KIND.controller(), store, trigger, metrics, stop, reconciler))
    }

    fn measure(&self, metrics: &Metrics) {
        let (depth, oldest) = self.handle.trigger().backlog();
        metrics.queue(C::Kind::KIND.controller(), depth, oldest);
        self.controller.measure(metrics);
    }

    fn count(&self, metrics: &Metrics, counts: &mut Counts, now: Timestamp) {
        for (_, object) in self.handle.store().iter(None) {
            let ready = object.as_ref().map(|object| object.conditions().iter().find(|it| it.type_ == "Ready"));
            let (ready, reason) = match ready {
                Err(_) => ("Unknown", "Schema"),
                Ok(None) => ("Unknown", ""),
                Ok(Some(ready)) if !["True", "False"].contains(&ready.status.as_str()) => {
                    ("Unknown", known(&ready.reason))
                }
                Ok(Some(ready)) => (ready.status.as_str(), known(&ready.reason)),
            };
            *counts.entry((C::Kind::KIND.as_str(), ready.to_owned(), reason.to_owned())).or_default() += 1;
        }
        self.controller.count(metrics, now);
    }
}

/// A reason of the operator; `Other` for one that somebody else wrote into a status, since every label value is a series.
fn known(reason: &str) -> &'static str {
    Reason::ALL.iter().map(|known| known.as_str()).find(|known| *known == reason).unwrap_or("Other")
}

/// All registered kinds.
pub struct Registry {
    parts: Parts,
    wakers: Wakers,
    table: Table,
    health: Arc<Health>,
    kinds: Vec<Box<dyn Registered>>,
}

impl Registry {
    /// No kinds yet. `parts` emit the signals of `wakers`.
    #[must_use]
    pub fn new(parts: Parts, wakers: Wakers, health: Arc<Health>) -> Self {
        let table = Table::new(&parts.settings.namespace);
        Self { parts, wakers, table, health, kinds: Vec::new() }
    }

    /// Registers a kind with its controller, which is built from the parts.
    pub fn add<C: Controller>(&mut self, new: impl FnOnce(&Parts) -> C) {
        let handle = self.parts.handles.of::<C::Kind>();
        self.wakers.add(self.table.clone(), handle.clone());
        self.health.starting(C::Kind::KIND.controller());
        let controller = Arc::new(new(&self.parts));
        self.kinds.push(Box::new(Entry { controller, handle, parts: self.parts.clone() }));
    }

    /// The kinds that are not registered. A kind that is not, but is used by a controller, would never be listed.
    #[cfg(test)]
    pub fn missing(&self) -> Vec<KindName> {
        let is_registered = |kind: &&KindName| self.kinds.iter().any(|it| it.kind() == **kind);
        KindName::ALL.iter().filter(|kind| !is_registered(kind)).copied().collect()
    }

    /// Starts the watches of all kinds.
    pub fn watch(&self, interruptions: &Interruptions, tasks: &mut JoinSet<()>) {
        for kind in &self.kinds {
            tasks.spawn(kind.watch(interruptions.clone()));
        }
    }

    /// Waits until all objects of all kinds were listed once.
    pub async fn listed(&self) {
        join_all(self.kinds.iter().map(|kind| kind.listed())).await;
    }

    /// Reconciles the objects that others depend on.
    pub async fn warm_up(&self) {
        for kind in self.kinds.iter().filter(|kind| kind.starts_first()) {
            kind.reconcile_all().await;
        }
    }

    /// Starts all controllers. What is returned ends when `stop` turns true and the work in hand is done.
    pub fn run(&self, stop: &StopSignal) -> impl Future<Output = ()> + use<> {
        let running: Vec<Work> = self.kinds.iter().map(|kind| kind.run(stop.clone())).collect();
        self.kinds.iter().for_each(|kind| self.health.started(kind.kind().controller()));
        async move { _ = join_all(running).await }
    }

    /// Sets the gauges that cost little.
    pub fn measure(&self, metrics: &Metrics) {
        self.kinds.iter().for_each(|kind| kind.measure(metrics));
    }

    /// Sets the gauges that are counted object by object.
    pub fn count(&self, metrics: &Metrics, now: Timestamp) {
        let mut counts = Counts::new();
        self.kinds.iter().for_each(|kind| kind.count(metrics, &mut counts, now));
        metrics.objects(counts);
    }
}

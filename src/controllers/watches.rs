//! The watches beside those of the kinds: namespaces, Secrets and ConfigMaps, and the reports of the edge.

use std::fmt::Debug;
use std::sync::Arc;

use futures::Stream;
use futures::future::join_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Error as WatchError, Event, watcher};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::registry::Work;
use super::shared::namespaces::Namespaces;
use super::shared::parts::Parts;
use super::shared::replicas::{self, Reported};
use super::shared::services::WatchedService;
use super::shared::signal::{Signal, Signals};
use super::shared::webhook::EXTERNAL_LABEL;
use crate::contract::component::{COMPONENT, Component};
use crate::kubernetes::health::Health;
use crate::kubernetes::known::Facts;
use crate::kubernetes::owned::Owned;
use crate::kubernetes::store::{Change, Store};
use crate::kubernetes::watch::Interruptions;

type Metadata<K> = PartialObjectMeta<K>;

/// The running watches. Those of the kinds are added by the registry, which waits for their lists itself.
pub struct Watches {
    tasks: JoinSet<()>,
    interruptions: Interruptions,
    health: Arc<Health>,
    names: Vec<&'static str>,
    listed: Vec<Work>,
}

impl Watches {
    /// Starts all watches.
    #[must_use]
    pub fn start(parts: &Parts, interruptions: Interruptions, health: Arc<Health>) -> Self {
        let (tasks, names, listed) = (JoinSet::new(), Vec::new(), Vec::new());
        let mut watches = Self { tasks, interruptions, health, names, listed };
        let client = || parts.client.clone();

        let (scope, config) = (parts.settings.scope.clone(), parts.listing.config());
        let (all, filter, listing) = (Api::<Metadata<Namespace>>::all(client()), scope.clone(), config.clone());
        let namespaces = move || {
            filter.filter(watcher(all.clone(), listing.clone()), |namespace| namespace.metadata.name.as_deref())
        };
        watches.store("namespaces", &parts.namespaces.0, namespaces, &parts.signals, |change| {
            let name = change.name.name.clone();
            Namespaces::concerns_others(change).then_some(Signal::NamespaceChanged(name))
        });
        let secrets = Api::<Metadata<Secret>>::namespaced(client(), &parts.settings.namespace);
        let listing = config.clone();
        let secrets = move || watcher(secrets.clone(), listing.clone());
        watches.store("operator_secrets", &parts.operator_secrets, secrets, &parts.signals, |change| {
            Some(Signal::OperatorSecretChanged(change.name.name.clone()))
        });
        let labelled = config.clone().labels(&format!("{EXTERNAL_LABEL}=true"));
        let client_for_keys = parts.client.clone();
        let secrets = move || scope.watch::<Metadata<Secret>>(&client_for_keys, &labelled);
        watches.store("key_secrets", &Store::default(), secrets, &parts.signals, |change| {
            Some(Signal::KeySecretChanged(change.name.clone()))
        });
        watches.owned("secrets", parts, &parts.certificates);
        watches.owned("config_maps", parts, &parts.bundles);
        watches.owned("webhook_secrets", parts, &parts.webhook_secrets);
        watches.owned("token_secrets", parts, &parts.token_secrets);
        if let Some(edge) = &parts.settings.edge_namespace {
            let reports = config.labels(&format!("{COMPONENT}={}", Component::EdgeReport));
            let config_maps = Api::<ConfigMap>::namespaced(client(), edge);
            let reports = watches.begin("edge_reports", move || watcher(config_maps.clone(), reports.clone()));
            let (replicas, signals) = (parts.replicas.clone(), parts.signals.clone());
            let signal = |reported| match reported {
                Reported::Replicas => Signal::ReplicasChanged,
                Reported::Served(webhooks) => Signal::RoutesServed(webhooks),
            };
            watches.tasks.spawn(async move { replicas::follow(&replicas, &signals, signal, reports).await });
            if parts.settings.service_address.is_none() {
                watches.services(parts);
            }
        }
        if let Some(tokens) = &parts.settings.tokens_namespace {
            let reports = parts.listing.config().labels(&format!("{COMPONENT}={}", Component::EdgeReport));
            let config_maps = Api::<ConfigMap>::namespaced(client(), tokens);
            let reports = watches.begin("issuer_reports", move || watcher(config_maps.clone(), reports.clone()));
            let (replicas, signals) = (parts.issuer_replicas.clone(), parts.signals.clone());
            let signal = |reported| match reported {
                Reported::Replicas => Signal::IssuerReplicasChanged,
                Reported::Served(domains) => Signal::IssuersServed(domains),
            };
            watches.tasks.spawn(async move { replicas::follow(&replicas, &signals, signal, reports).await });
        }
        watches
    }

    /// Waits until everything that exists was listed once.
    pub async fn listed(&mut self) {
        join_all(std::mem::take(&mut self.listed)).await;
        self.names.iter().for_each(|name| self.health.started(name));
    }

    /// The tasks of the watches. A watch goes on for ever, so one that ends has panicked.
    pub fn tasks(&mut self) -> &mut JoinSet<()> {
        &mut self.tasks
    }

    fn begin<T, E, F>(&mut self, name: &'static str, open: F) -> impl Stream<Item = Event<T>> + Send + use<T, E, F>
    where
        T: Send,
        E: Stream<Item = Result<Event<T>, WatchError>> + Send,
        F: Fn() -> E + Send,
    {
        self.health.starting(name);
        self.names.push(name);
        self.interruptions.clone().retry_forever(name, open)
    }

    /// Keeps objects in a store.
    fn store<K, E>(
        &mut self,
        name: &'static str,
        store: &Store<Metadata<K>>,
        open: impl Fn() -> E + Send + 'static,
        signals: &Signals,
        signal: impl Fn(&Change<Metadata<K>>) -> Option<Signal> + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Stream<Item = Result<Event<Metadata<K>>, WatchError>> + Send + 'static,
    {
        let (events, signals) = (self.begin(name, open), signals.clone());
        let changed = move |change| signal(&change).into_iter().for_each(|signal| signals.emit(signal));
        self.tasks.spawn(store.clone().follow(events, changed));
        let store = store.clone();
        self.listed.push(Box::pin(async move { store.wait_until_listed().await }));
    }

    /// Keeps what routes need of Services.
    fn services(&mut self, parts: &Parts) {
        let (scope, client, config) = (parts.settings.scope.clone(), parts.client.clone(), parts.listing.config());
        let events = self.begin("services", move || scope.watch::<WatchedService>(&client, &config));
        let (services, signals, listed) = (parts.services.clone(), parts.signals.clone(), Arc::new(Notify::new()));
        let done = listed.clone();
        self.tasks.spawn(async move {
            let changed = |service| signals.emit(Signal::ServiceChanged(service));
            services.follow(events, || done.notify_one(), changed).await;
        });
        self.listed.push(Box::pin(async move { listed.notified().await }));
    }

    /// Keeps the records of objects that the operator writes.
    fn owned<K, F>(&mut self, name: &'static str, parts: &Parts, owned: &Arc<Owned<K, F>>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
        F: Facts,
    {
        let ours = parts.listing.config().labels(&Owned::<K, F>::selector());
        let (scope, client) = (parts.settings.scope.clone(), parts.client.clone());
        let events = self.begin(name, move || scope.watch::<Metadata<K>>(&client, &ours));
        let (owned, signals, listed) = (owned.clone(), parts.signals.clone(), Arc::new(Notify::new()));
        let done = listed.clone();
        self.tasks.spawn(async move {
            let changed = |object| signals.emit(Signal::WrittenChanged(object));
            owned.follow(events, || done.notify_one(), changed).await;
        });
        self.listed.push(Box::pin(async move { listed.notified().await }));
    }
}

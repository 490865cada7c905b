//! Starts and stops everything: watches first, then what others depend on, then all controllers.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::Stream;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Error as WatchError, Event, watcher};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::claims::NameClaims;
use super::context::{Authorities, Context, SeenFacts, Settings, Statuses, Stores, Triggers};
use super::edges::{self, Edges};
use super::gate::RotationGate;
use super::gauges::{self, Counted};
use super::service_identity::Logins;
use super::webhook::{Gone, Webhook};
use super::{broker_connection, rotation_policy, service_identity, topic_policy, trust_domain, webhook};
use crate::api::{ServiceIdentity, TopicPolicy, WebhookDestination, WebhookEndpoint};
use crate::brokers::registry::Brokers;
use crate::contract::Component;
use crate::domain::fence::Fence;
use crate::domain::name::Name;
use crate::kubernetes::COMPONENT;
use crate::kubernetes::error::Error;
use crate::kubernetes::events::Events;
use crate::kubernetes::guard::Guarded;
use crate::kubernetes::health::{Health, Stage};
use crate::kubernetes::owned::Owned;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::{Done, Trigger, run as run_controller};
use crate::kubernetes::store::{Store, Watched};
use crate::kubernetes::watch::{self, Interruptions};
use crate::metrics::Metrics;

/// How long trust domains and brokers may take before identities and policies start without them.
const HEAD_START: Duration = Duration::from_secs(10);
/// How many objects that may hang together are worked on at once.
const WORKERS: usize = 64;
/// The same for policies of one broker: what waits together goes out together.
const POLICY_WORKERS: usize = 256;
/// How long reports on a rotation policy gather, since counting looks at every identity.
const GATHER: Duration = Duration::from_millis(500);
/// How often the wall clock is compared with the time that has passed, and by how much they may differ.
const CLOCK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// The controllers, as logs, metrics and `/readyz` name them.
const CONTROLLERS: [&str; 7] = [
    "trust_domain",
    "service_identity",
    "rotation_policy",
    "broker_connection",
    "topic_policy",
    "webhook_endpoint",
    "webhook_destination",
];
/// The watches that controllers share, beside one for each of them.
const WATCHES: [&str; 7] =
    ["namespaces", "operator_secrets", "secrets", "config_maps", "webhook_secrets", "key_secrets", "edge_reports"];

/// Turns true when the operator is to stop.
type StopSignal = tokio::sync::watch::Receiver<bool>;

/// Runs all controllers until `stop` turns true and the work in hand is done. `health` is told when everything that
/// exists has been listed and the controllers are at work.
pub async fn run(
    client: Client,
    fence: Fence,
    settings: Settings,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: StopSignal,
) {
    for part in CONTROLLERS.iter().chain(&WATCHES) {
        health.starting(part);
    }
    health.enter(Stage::Starting);
    let context = build(client, fence, settings, metrics.clone());
    let for_metrics = Arc::downgrade(&context);
    metrics.refresh_with(move |metrics| {
        if let Some(context) = for_metrics.upgrade() {
            gauges::refresh(&context, metrics);
        }
    });
    let listed = Arc::new(Listed::default());
    let count = Arc::new(move |part| metrics.interrupted(part));
    let interruptions = Interruptions { count, health: health.clone() };
    let mut watches = watch_all(&context, &listed, &interruptions);
    listed.all(&context).await;
    for part in WATCHES {
        health.started(part);
    }
    tracing::info!("everything is listed");

    // Identities need authorities and policies need brokers: without a head start every restart would report both as
    // missing, and write it down.
    let head_start = async {
        let domains = context.stores.trust_domains.valid(None);
        join_all(domains.map(|it| trust_domain::reconcile(context.clone(), Arc::new(it)))).await;
        let connections = context.stores.brokers.valid(None);
        join_all(connections.map(|it| broker_connection::reconcile(context.clone(), Arc::new(it)))).await;
    };
    if timeout(HEAD_START, head_start).await.is_err() {
        tracing::warn!("a trust domain or a broker takes long; identities and policies start without it");
    }
    let controllers = control_all(&context, &stop);
    for part in CONTROLLERS {
        health.started(part);
    }
    health.enter(Stage::Working);
    tokio::select! {
        () = async { join_all(controllers).await; } => {}
        // A watch follows for ever; one that ends has panicked, and nothing may go on without its events.
        _ = watches.join_next() => tracing::error!("a watch ended; the operator stops"),
        () = mind_the_clock(&context) => {}
        () = webhook::sweep_for_ever(&context) => {}
    }
    health.enter(Stage::Starting);
}

/// Wakes everybody when the wall clock is set: what waits for a time of day would otherwise wait for the old one.
async fn mind_the_clock(context: &Context) {
    let mut seen = (Instant::now(), SystemTime::now());
    loop {
        sleep(CLOCK.0).await;
        let now = (Instant::now(), SystemTime::now());
        let passed = now.0 - seen.0;
        let expected = seen.1 + passed;
        let off = now.1.duration_since(expected).unwrap_or_else(|error| error.duration());
        if off > CLOCK.1 {
            tracing::warn!(?off, "the clock was set; everything is looked at again");
            context.clock_was_set();
        }
        seen = now;
    }
}

fn build(client: Client, fence: Fence, settings: Settings, metrics: Arc<Metrics>) -> Arc<Context> {
    let stores = Stores::default();
    let (identities, topic_policies) = (stores.identities.clone(), stores.topic_policies.clone());
    let triggers = Triggers {
        trust_domains: Trigger::new(WORKERS, Duration::ZERO, alone),
        identities: Trigger::new(WORKERS, Duration::ZERO, move |name| with_brokers(&identities, name)),
        rotation_policies: Trigger::new(WORKERS, GATHER, by_namespace),
        brokers: Trigger::new(WORKERS, Duration::ZERO, alone),
        webhook_endpoints: Trigger::new(WORKERS, Duration::ZERO, by_namespace),
        webhook_destinations: Trigger::new(WORKERS, Duration::ZERO, by_namespace),
        topic_policies: Trigger::new(POLICY_WORKERS, Duration::ZERO, move |name| with_broker(&topic_policies, name)),
    };
    Arc::new(Context {
        settings,
        stores,
        triggers,
        statuses: Statuses::default(),
        secrets: Owned::new(client.clone()),
        config_maps: Owned::new(client.clone()),
        webhook_secrets: Owned::new(client.clone()),
        edges: Edges::default(),
        gone_webhooks: Gone::default(),
        authorities: Authorities::default(),
        brokers: Brokers::default(),
        claims: NameClaims::default(),
        seen: SeenFacts::default(),
        gate: RotationGate::default(),
        logins: Logins::default(),
        counted: Counted::default(),
        events: Events::new(client.clone()),
        metrics,
        fence,
        client,
    })
}

/// Nothing holds these up; namespaces take turns.
fn by_namespace(name: &Name) -> Lane {
    Lane { turn: name.namespace.to_string(), ..Lane::default() }
}

/// A trust domain or a broker that hangs holds nobody but itself.
fn alone(name: &Name) -> Lane {
    Lane { group: name.name.to_string(), turn: String::new() }
}

/// An identity may be held up by the brokers that it has accounts on.
fn with_brokers(store: &Store<ServiceIdentity>, name: &Name) -> Lane {
    let brokers = store.get(Some(&name.namespace), &name.name).map(|identity| identity.spec.brokers);
    let names = brokers.iter().flatten().map(|broker| broker.name.as_str());
    Lane { group: names.collect::<Vec<_>>().join(","), turn: name.namespace.to_string() }
}

/// A policy may be held up by its broker.
fn with_broker(store: &Store<TopicPolicy>, name: &Name) -> Lane {
    let broker = store.get(Some(&name.namespace), &name.name).map(|policy| policy.spec.broker);
    Lane { group: broker.unwrap_or_default(), turn: name.namespace.to_string() }
}

/// Whether Secrets and ConfigMaps of ours have been listed; the stores know by themselves.
#[derive(Default)]
struct Listed {
    secrets: Notify,
    config_maps: Notify,
    webhook_secrets: Notify,
}

impl Listed {
    async fn all(&self, context: &Context) {
        let stores = &context.stores;
        tokio::join!(
            stores.trust_domains.wait_until_listed(),
            stores.identities.wait_until_listed(),
            stores.rotation_policies.wait_until_listed(),
            stores.brokers.wait_until_listed(),
            stores.topic_policies.wait_until_listed(),
            stores.namespaces.wait_until_listed(),
            stores.operator_secrets.wait_until_listed(),
            self.secrets.notified(),
            self.config_maps.notified(),
            stores.webhook_endpoints.wait_until_listed(),
            stores.webhook_destinations.wait_until_listed(),
            stores.key_secrets.wait_until_listed(),
            self.webhook_secrets.notified(),
        );
    }
}

fn watch_all(context: &Arc<Context>, listed: &Arc<Listed>, interruptions: &Interruptions) -> JoinSet<()> {
    let mut watches = Watches { set: JoinSet::new(), context: context.clone(), interruptions: interruptions.clone() };
    let (stores, client) = (&context.stores, || context.client.clone());
    watches.add("trust_domain", &stores.trust_domains, Context::trust_domain_changed);
    watches.add("service_identity", &stores.identities, Context::identity_changed);
    watches.add("rotation_policy", &stores.rotation_policies, Context::rotation_policy_changed);
    watches.add("broker_connection", &stores.brokers, Context::broker_changed);
    watches.add("topic_policy", &stores.topic_policies, Context::topic_policy_changed);
    watches.add("webhook_endpoint", &stores.webhook_endpoints, Context::webhook_changed::<WebhookEndpoint>);
    watches.add("webhook_destination", &stores.webhook_destinations, Context::webhook_changed::<WebhookDestination>);
    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client()), watch::config());
    watches.follow("namespaces", &stores.namespaces, namespaces, Context::namespace_changed);
    let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(client(), &context.settings.namespace);
    let secrets = watcher(secrets, watch::config());
    watches.follow("operator_secrets", &stores.operator_secrets, secrets, Context::operator_secret_changed);

    let ours = watch::config().labels(&Owned::<Secret, super::material::MaterialFacts>::selector());
    let (for_watch, done) = (context.clone(), listed.clone());
    let secrets = watcher(Api::<PartialObjectMeta<Secret>>::all(client()), ours);
    let secrets = interruptions.clone().outlive("secrets", secrets);
    watches.set.spawn(async move {
        let changed = |namespace: &str, owner: &str| for_watch.owned_changed(namespace, owner);
        for_watch.secrets.follow(secrets, || done.secrets.notify_one(), changed).await;
    });
    let labelled = watch::config().labels(&format!("{}=true", webhook::EXTERNAL_LABEL));
    let key_secrets = watcher(Api::<PartialObjectMeta<Secret>>::all(client()), labelled);
    watches.follow("key_secrets", &stores.key_secrets, key_secrets, Context::key_secret_changed);
    if let Some(edge) = &context.settings.edge_namespace {
        let reports = Api::<ConfigMap>::namespaced(client(), edge);
        let reports = watcher(reports, watch::config().labels(&format!("{COMPONENT}={}", Component::EdgeReport)));
        let reports = interruptions.clone().outlive("edge_reports", reports);
        let for_watch = context.clone();
        watches.set.spawn(async move { edges::follow(&for_watch, reports).await });
    }
    let ours_of_webhooks = watch::config().labels(&Owned::<Secret, super::material::WebhookFacts>::selector());
    let (for_watch, done) = (context.clone(), listed.clone());
    let secrets = watcher(Api::<PartialObjectMeta<Secret>>::all(client()), ours_of_webhooks);
    let secrets = interruptions.clone().outlive("webhook_secrets", secrets);
    watches.set.spawn(async move {
        let changed = |namespace: &str, owner: &str| for_watch.owned_changed(namespace, owner);
        for_watch.webhook_secrets.follow(secrets, || done.webhook_secrets.notify_one(), changed).await;
    });
    let (for_watch, done) = (context.clone(), listed.clone());
    let bundles = watch::config().labels(&Owned::<ConfigMap, super::material::BundleFacts>::selector());
    let config_maps = watcher(Api::<PartialObjectMeta<ConfigMap>>::all(client()), bundles);
    let config_maps = interruptions.clone().outlive("config_maps", config_maps);
    watches.set.spawn(async move {
        let changed = |namespace: &str, owner: &str| for_watch.owned_changed(namespace, owner);
        for_watch.config_maps.follow(config_maps, || done.config_maps.notify_one(), changed).await;
    });
    watches.set
}

/// The watches whose objects are kept in stores.
struct Watches {
    set: JoinSet<()>,
    context: Arc<Context>,
    interruptions: Interruptions,
}

impl Watches {
    /// Watches one of our own kinds.
    fn add<K>(&mut self, part: &'static str, store: &Store<K>, changed: fn(&Context, &Name))
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        let api: Api<Guarded<K>> = Api::all(self.context.client.clone());
        self.follow(part, store, watcher(api, watch::config()), changed);
    }

    fn follow<K, W>(
        &mut self,
        part: &'static str,
        store: &Store<K>,
        events: impl Stream<Item = Result<Event<W>, WatchError>> + Send + 'static,
        changed: fn(&Context, &Name),
    ) where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + Sync + 'static,
        W: Watched<Object = K> + 'static,
    {
        let context = self.context.clone();
        let events = self.interruptions.clone().outlive(part, events);
        self.set.spawn(store.clone().follow(events, move |name| changed(&context, name)));
    }
}

type Running = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn control_all(context: &Arc<Context>, stop: &StopSignal) -> Vec<Running> {
    let (stores, triggers) = (&context.stores, &context.triggers);
    let [
        trust_domain,
        service_identity,
        rotation_policy,
        broker_connection,
        topic_policy,
        webhook_endpoint,
        webhook_destination,
    ] = CONTROLLERS;
    let control = Control { context, stop };
    vec![
        control.of(trust_domain, &stores.trust_domains, &triggers.trust_domains, trust_domain::reconcile),
        control.of(service_identity, &stores.identities, &triggers.identities, service_identity::reconcile),
        control.of(rotation_policy, &stores.rotation_policies, &triggers.rotation_policies, rotation_policy::reconcile),
        control.of(broker_connection, &stores.brokers, &triggers.brokers, broker_connection::reconcile),
        control.of(topic_policy, &stores.topic_policies, &triggers.topic_policies, topic_policy::reconcile),
        control.of_webhook::<WebhookEndpoint>(webhook_endpoint),
        control.of_webhook::<WebhookDestination>(webhook_destination),
    ]
}

struct Control<'a> {
    context: &'a Arc<Context>,
    stop: &'a StopSignal,
}

impl Control<'_> {
    fn of_webhook<W: Webhook>(&self, name: &'static str) -> Running {
        let (store, trigger) = (W::store(&self.context.stores), W::trigger(&self.context.triggers));
        self.of(name, store, trigger, webhook::reconcile)
    }

    fn of<K, F>(
        &self,
        name: &'static str,
        store: &Store<K>,
        trigger: &Trigger,
        reconcile: impl Fn(Arc<Context>, Arc<K>) -> F + Send + Sync + 'static,
    ) -> Running
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<Done, Error>> + Send + 'static,
    {
        let (for_work, metrics) = (self.context.clone(), self.context.metrics.clone());
        let work = move |object: Arc<K>| reconcile(for_work.clone(), object);
        Box::pin(run_controller(name, store.clone(), trigger.clone(), metrics, self.stop.clone(), work))
    }
}

//! Starts and stops everything: watches first, then what others depend on, then all controllers.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store, store, store::Writer};
use kube::runtime::watcher::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::context::{Authorities, Context, NameClaims, SeenFacts, Settings, Statuses, Stores, Triggers};
use super::gate::RotationGate;
use super::service_identity::Logins;
use super::{broker_connection, gauges, rotation_policy, service_identity, topic_policy, trust_domain};
use crate::api::{BrokerConnection, RotationPolicy, ServiceIdentity, TopicPolicy, TrustDomain};
use crate::brokers::registry::Brokers;
use crate::domain::fence::Fence;
use crate::kubernetes::error::Error;
use crate::kubernetes::events::Events;
use crate::kubernetes::health::{Health, Stage};
use crate::kubernetes::owned::Owned;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::{Done, Guarded, Trigger, run as run_controller};
use crate::kubernetes::watch::{self, Interruptions, follow};
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
const CONTROLLERS: [&str; 5] =
    ["trust_domain", "service_identity", "rotation_policy", "broker_connection", "topic_policy"];
/// The watches that controllers share, beside one for each of them.
const WATCHES: [&str; 4] = ["namespaces", "operator_secrets", "secrets", "config_maps"];

/// Turns true when the operator is to stop.
type StopSignal = tokio::sync::watch::Receiver<bool>;

struct Writers {
    trust_domains: Writer<Guarded<TrustDomain>>,
    identities: Writer<Guarded<ServiceIdentity>>,
    rotation_policies: Writer<Guarded<RotationPolicy>>,
    brokers: Writer<Guarded<BrokerConnection>>,
    topic_policies: Writer<Guarded<TopicPolicy>>,
    namespaces: Writer<PartialObjectMeta<Namespace>>,
    operator_secrets: Writer<PartialObjectMeta<Secret>>,
}

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
    let (context, writers) = build(client, fence, settings, metrics.clone());
    let for_metrics = Arc::downgrade(&context);
    metrics.refresh_with(move |metrics| {
        if let Some(context) = for_metrics.upgrade() {
            gauges::refresh(&context, metrics);
        }
    });
    let listed = Arc::new(Listed::default());
    let interruptions = Interruptions { metrics, health: health.clone() };
    let mut watches = watch_all(&context, writers, &listed, &interruptions);
    listed.all(&context).await;
    for part in WATCHES {
        health.started(part);
    }
    tracing::info!("everything is listed");

    // Identities need authorities and policies need brokers: without a head start every restart would report both as
    // missing, and write it down.
    let domains = Context::select(&context.stores.trust_domains, |_: &TrustDomain| true);
    let connections = Context::select(&context.stores.brokers, |_: &BrokerConnection| true);
    let head_start = async {
        join_all(domains.into_iter().map(|it| trust_domain::reconcile(context.clone(), Arc::new(it)))).await;
        join_all(connections.into_iter().map(|it| broker_connection::reconcile(context.clone(), Arc::new(it)))).await;
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

fn build(client: Client, fence: Fence, settings: Settings, metrics: Arc<Metrics>) -> (Arc<Context>, Writers) {
    let (trust_domains, trust_domain_writer) = store();
    let (identities, identity_writer) = store();
    let (rotation_policies, rotation_policy_writer) = store();
    let (brokers, broker_writer) = store();
    let (topic_policies, topic_policy_writer) = store();
    let (namespaces, namespace_writer) = store();
    let (operator_secrets, operator_secret_writer) = store();
    let for_lane = (identities.clone(), topic_policies.clone());
    let triggers = Triggers {
        trust_domains: Trigger::new(WORKERS, Duration::ZERO, alone),
        identities: Trigger::new(WORKERS, Duration::ZERO, move |key| with_brokers(&for_lane.0, key)),
        rotation_policies: Trigger::new(WORKERS, GATHER, |key| Lane { group: String::new(), turn: namespace(key) }),
        brokers: Trigger::new(WORKERS, Duration::ZERO, alone),
        topic_policies: Trigger::new(POLICY_WORKERS, Duration::ZERO, move |key| with_broker(&for_lane.1, key)),
    };
    let context = Context {
        settings,
        stores: Stores {
            trust_domains,
            identities,
            rotation_policies,
            brokers,
            topic_policies,
            namespaces,
            operator_secrets,
        },
        triggers,
        statuses: Statuses::default(),
        secrets: Owned::new(client.clone()),
        config_maps: Owned::new(client.clone()),
        authorities: Authorities::default(),
        brokers: Brokers::default(),
        claims: NameClaims::default(),
        seen: SeenFacts::default(),
        gate: RotationGate::default(),
        logins: Logins::default(),
        events: Events::new(client.clone()),
        metrics,
        fence,
        client,
    };
    let writers = Writers {
        trust_domains: trust_domain_writer,
        identities: identity_writer,
        rotation_policies: rotation_policy_writer,
        brokers: broker_writer,
        topic_policies: topic_policy_writer,
        namespaces: namespace_writer,
        operator_secrets: operator_secret_writer,
    };
    (Arc::new(context), writers)
}

fn namespace<K: Resource<DynamicType = ()>>(key: &ObjectRef<Guarded<K>>) -> String {
    key.namespace.clone().unwrap_or_default()
}

/// A trust domain or a broker that hangs holds nobody but itself.
fn alone<K: Resource<DynamicType = ()>>(key: &ObjectRef<Guarded<K>>) -> Lane {
    Lane { group: key.name.clone(), turn: String::new() }
}

/// An identity may be held up by the brokers that it has accounts on.
fn with_brokers(store: &Store<Guarded<ServiceIdentity>>, key: &ObjectRef<Guarded<ServiceIdentity>>) -> Lane {
    let found = store.get(key);
    let brokers = found.iter().filter_map(|found| found.0.as_ref().ok()).flat_map(|identity| &identity.spec.brokers);
    let group = brokers.map(|broker| broker.name.as_str()).collect::<Vec<_>>().join(",");
    Lane { group, turn: namespace(key) }
}

/// A policy may be held up by its broker.
fn with_broker(store: &Store<Guarded<TopicPolicy>>, key: &ObjectRef<Guarded<TopicPolicy>>) -> Lane {
    let found = store.get(key);
    let policy = found.as_ref().and_then(|found| found.0.as_ref().ok());
    Lane { group: policy.map(|policy| policy.spec.broker.clone()).unwrap_or_default(), turn: namespace(key) }
}

/// Whether Secrets and ConfigMaps of ours have been listed; the stores know by themselves.
#[derive(Default)]
struct Listed {
    secrets: Notify,
    config_maps: Notify,
}

impl Listed {
    async fn all(&self, context: &Context) {
        let stores = &context.stores;
        // A writer is only dropped when the operator stops.
        let _ = tokio::join!(
            stores.trust_domains.wait_until_ready(),
            stores.identities.wait_until_ready(),
            stores.rotation_policies.wait_until_ready(),
            stores.brokers.wait_until_ready(),
            stores.topic_policies.wait_until_ready(),
            stores.namespaces.wait_until_ready(),
            stores.operator_secrets.wait_until_ready(),
            self.secrets.notified(),
            self.config_maps.notified(),
        );
    }
}

fn watch_all(
    context: &Arc<Context>,
    writers: Writers,
    listed: &Arc<Listed>,
    interruptions: &Interruptions,
) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let client = || context.client.clone();
    let mut own = Watches { set: &mut watches, context, interruptions };
    own.add("trust_domain", writers.trust_domains, Context::trust_domain_changed);
    own.add("service_identity", writers.identities, Context::identity_changed);
    own.add("rotation_policy", writers.rotation_policies, Context::rotation_policy_changed);
    own.add("broker_connection", writers.brokers, Context::broker_changed);
    own.add("topic_policy", writers.topic_policies, Context::topic_policy_changed);

    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client()), watch::config());
    let namespaces = interruptions.clone().outlive("namespaces", namespaces);
    let for_watch = context.clone();
    watches.spawn(follow(namespaces, writers.namespaces, move |reference| for_watch.namespace_changed(reference)));
    let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(client(), &context.settings.namespace);
    let secrets = interruptions.clone().outlive("operator_secrets", watcher(secrets, watch::config()));
    let for_watch = context.clone();
    watches.spawn(follow(secrets, writers.operator_secrets, move |it| for_watch.operator_secret_changed(it)));

    let ours = watch::config().labels(&Owned::<Secret, super::material::MaterialFacts>::selector());
    let (for_watch, done) = (context.clone(), listed.clone());
    let secrets = watcher(Api::<PartialObjectMeta<Secret>>::all(client()), ours.clone());
    let secrets = interruptions.clone().outlive("secrets", secrets);
    watches.spawn(async move {
        let changed = |namespace: &str, owner: &str| for_watch.owned_changed(namespace, owner);
        for_watch.secrets.follow(secrets, || done.secrets.notify_one(), changed).await;
    });
    let (for_watch, done) = (context.clone(), listed.clone());
    let config_maps = watcher(Api::<PartialObjectMeta<ConfigMap>>::all(client()), ours);
    let config_maps = interruptions.clone().outlive("config_maps", config_maps);
    watches.spawn(async move {
        let changed = |namespace: &str, owner: &str| for_watch.owned_changed(namespace, owner);
        for_watch.config_maps.follow(config_maps, || done.config_maps.notify_one(), changed).await;
    });
    watches
}

/// The watches of our own kinds.
struct Watches<'a> {
    set: &'a mut JoinSet<()>,
    context: &'a Arc<Context>,
    interruptions: &'a Interruptions,
}

impl Watches<'_> {
    fn add<K>(
        &mut self,
        part: &'static str,
        writer: Writer<Guarded<K>>,
        changed: impl Fn(&Context, &ObjectRef<Guarded<K>>) + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let api: Api<Guarded<K>> = Api::all(self.context.client.clone());
        let context = self.context.clone();
        let events = self.interruptions.clone().outlive(part, watcher(api, watch::config()));
        self.set.spawn(follow(events, writer, move |reference| changed(&context, reference)));
    }
}

type Running = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn control_all(context: &Arc<Context>, stop: &StopSignal) -> Vec<Running> {
    let (stores, triggers) = (&context.stores, &context.triggers);
    let [trust_domain, service_identity, rotation_policy, broker_connection, topic_policy] = CONTROLLERS;
    let control = Control { context, stop };
    vec![
        control.of(trust_domain, &stores.trust_domains, &triggers.trust_domains, trust_domain::reconcile),
        control.of(service_identity, &stores.identities, &triggers.identities, service_identity::reconcile),
        control.of(rotation_policy, &stores.rotation_policies, &triggers.rotation_policies, rotation_policy::reconcile),
        control.of(broker_connection, &stores.brokers, &triggers.brokers, broker_connection::reconcile),
        control.of(topic_policy, &stores.topic_policies, &triggers.topic_policies, topic_policy::reconcile),
    ]
}

struct Control<'a> {
    context: &'a Arc<Context>,
    stop: &'a StopSignal,
}

impl Control<'_> {
    fn of<K, F>(
        &self,
        name: &'static str,
        store: &Store<Guarded<K>>,
        trigger: &Trigger<K>,
        reconcile: impl Fn(Arc<Context>, Arc<K>) -> F + Send + Sync + 'static,
    ) -> Running
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
        F: Future<Output = Result<Done, Error>> + Send + 'static,
    {
        let (for_work, metrics) = (self.context.clone(), self.context.metrics.clone());
        let work = move |object: Arc<K>| reconcile(for_work.clone(), object);
        Box::pin(run_controller(name, store.clone(), trigger.clone(), metrics, self.stop.clone(), work))
    }
}

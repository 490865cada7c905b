//! Starts and stops everything: watches first, then what others depend on, then all controllers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Config;
use kube::runtime::reflector::{ObjectRef, Store, store, store::Writer};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::context::{Authorities, Context, NameClaims, SeenFacts, Settings, Statuses, Stores, Triggers};
use super::gate::RotationGate;
use super::{broker_connection, rotation_policy, service_identity, topic_policy, trust_domain};
use crate::api::{BrokerConnection, RotationPolicy, ServiceIdentity, TopicPolicy, TrustDomain};
use crate::brokers::registry::Brokers;
use crate::domain::fence::Fence;
use crate::kubernetes::error::Error;
use crate::kubernetes::events::Events;
use crate::kubernetes::owned::Owned;
use crate::kubernetes::run::{Guarded, Next, Queue, Trigger, run as run_controller};
use crate::kubernetes::watch::follow;
use crate::metrics::Metrics;
use crate::server::Readiness;

/// How long trust domains and brokers may take before identities and policies start without them.
const HEAD_START: Duration = Duration::from_secs(10);
/// How many objects of one kind are worked on at once.
const CONCURRENCY: u16 = 64;
/// How long reports on a rotation policy gather, since counting looks at every identity.
const GATHER: Duration = Duration::from_millis(500);

struct Writers {
    trust_domains: Writer<Guarded<TrustDomain>>,
    identities: Writer<Guarded<ServiceIdentity>>,
    rotation_policies: Writer<Guarded<RotationPolicy>>,
    brokers: Writer<Guarded<BrokerConnection>>,
    topic_policies: Writer<Guarded<TopicPolicy>>,
    namespaces: Writer<PartialObjectMeta<Namespace>>,
    operator_secrets: Writer<PartialObjectMeta<Secret>>,
}

struct Queues {
    trust_domains: Queue<TrustDomain>,
    identities: Queue<ServiceIdentity>,
    rotation_policies: Queue<RotationPolicy>,
    brokers: Queue<BrokerConnection>,
    topic_policies: Queue<TopicPolicy>,
}

/// Runs all controllers until `stop` turns true and the work in hand is done. `readiness` says so when
/// everything that exists has been listed and the controllers are at work.
pub async fn run(
    client: Client,
    fence: Fence,
    settings: Settings,
    metrics: Arc<Metrics>,
    readiness: watch::Sender<Readiness>,
    stop: watch::Receiver<bool>,
) {
    let (context, writers, queues) = build(client, fence, settings, metrics);
    let listed = Arc::new(Listed::default());
    let mut watches = watch_all(&context, writers, &listed);
    listed.all(&context).await;
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
    let controllers = control_all(&context, queues, &stop);
    readiness.send_replace(Readiness::Working);
    tokio::select! {
        () = async { join_all(controllers).await; } => {}
        // A watch follows for ever; one that ends has panicked, and nothing may go on without its events.
        _ = watches.join_next() => tracing::error!("a watch ended; the operator stops"),
    }
    readiness.send_replace(Readiness::Starting);
}

fn build(client: Client, fence: Fence, settings: Settings, metrics: Arc<Metrics>) -> (Arc<Context>, Writers, Queues) {
    let (trust_domains, trust_domain_writer) = store();
    let (identities, identity_writer) = store();
    let (rotation_policies, rotation_policy_writer) = store();
    let (brokers, broker_writer) = store();
    let (topic_policies, topic_policy_writer) = store();
    let (namespaces, namespace_writer) = store();
    let (operator_secrets, operator_secret_writer) = store();
    let (trust_domain_trigger, trust_domain_queue) = Trigger::new();
    let (identity_trigger, identity_queue) = Trigger::new();
    let (rotation_policy_trigger, rotation_policy_queue) = Trigger::new();
    let (broker_trigger, broker_queue) = Trigger::new();
    let (topic_policy_trigger, topic_policy_queue) = Trigger::new();
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
        triggers: Triggers {
            trust_domains: trust_domain_trigger,
            identities: identity_trigger,
            rotation_policies: rotation_policy_trigger,
            brokers: broker_trigger,
            topic_policies: topic_policy_trigger,
        },
        statuses: Statuses::default(),
        secrets: Owned::new(client.clone()),
        config_maps: Owned::new(client.clone()),
        authorities: Authorities::default(),
        brokers: Brokers::default(),
        claims: NameClaims::default(),
        seen: SeenFacts::default(),
        gate: RotationGate::default(),
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
    let queues = Queues {
        trust_domains: trust_domain_queue,
        identities: identity_queue,
        rotation_policies: rotation_policy_queue,
        brokers: broker_queue,
        topic_policies: topic_policy_queue,
    };
    (Arc::new(context), writers, queues)
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

fn watch_all(context: &Arc<Context>, writers: Writers, listed: &Arc<Listed>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let everything = watcher::Config::default;
    let client = || context.client.clone();
    watch_kind(&mut watches, context, writers.trust_domains, Context::trust_domain_changed);
    watch_kind(&mut watches, context, writers.identities, Context::identity_changed);
    watch_kind(&mut watches, context, writers.rotation_policies, Context::rotation_policy_changed);
    watch_kind(&mut watches, context, writers.brokers, Context::broker_changed);
    watch_kind(&mut watches, context, writers.topic_policies, Context::topic_policy_changed);

    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client()), everything());
    let for_watch = context.clone();
    watches.spawn(follow(namespaces, writers.namespaces, move |reference| for_watch.namespace_changed(reference)));
    let secrets = Api::<PartialObjectMeta<Secret>>::namespaced(client(), &context.settings.namespace);
    let secrets = watcher(secrets, everything());
    let for_watch = context.clone();
    watches.spawn(follow(secrets, writers.operator_secrets, move |it| for_watch.operator_secret_changed(it)));

    let ours = watcher::Config::default().labels(&Owned::<Secret, super::material::MaterialFacts>::selector());
    let (for_watch, done) = (context.clone(), listed.clone());
    let secrets = watcher(Api::<PartialObjectMeta<Secret>>::all(client()), ours.clone());
    watches.spawn(async move {
        let changed = |namespace: &str, owner: &str| for_watch.owned_changed(namespace, owner);
        for_watch.secrets.follow(secrets, || done.secrets.notify_one(), changed).await;
    });
    let (for_watch, done) = (context.clone(), listed.clone());
    let config_maps = watcher(Api::<PartialObjectMeta<ConfigMap>>::all(client()), ours);
    watches.spawn(async move {
        let changed = |namespace: &str, owner: &str| for_watch.owned_changed(namespace, owner);
        for_watch.config_maps.follow(config_maps, || done.config_maps.notify_one(), changed).await;
    });
    watches
}

fn watch_kind<K>(
    watches: &mut JoinSet<()>,
    context: &Arc<Context>,
    writer: Writer<Guarded<K>>,
    changed: impl Fn(&Context, &ObjectRef<Guarded<K>>) + Send + 'static,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let api: Api<Guarded<K>> = Api::all(context.client.clone());
    let context = context.clone();
    let events = watcher(api, watcher::Config::default());
    watches.spawn(follow(events, writer, move |reference| changed(&context, reference)));
}

type Running = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn control_all(context: &Arc<Context>, queues: Queues, stop: &watch::Receiver<bool>) -> Vec<Running> {
    let at_once = Config::default().concurrency(CONCURRENCY);
    // A broker that hangs holds its policies; they must not hold those of another broker.
    let unbounded = Config::default().concurrency(0);
    let gathered = at_once.clone().debounce(GATHER);
    let (stores, stop) = (&context.stores, || stop.clone());
    vec![
        control(
            "trust_domain",
            context,
            &stores.trust_domains,
            queues.trust_domains,
            stop(),
            at_once.clone(),
            trust_domain::reconcile,
        ),
        control(
            "service_identity",
            context,
            &stores.identities,
            queues.identities,
            stop(),
            at_once.clone(),
            service_identity::reconcile,
        ),
        control(
            "rotation_policy",
            context,
            &stores.rotation_policies,
            queues.rotation_policies,
            stop(),
            gathered,
            rotation_policy::reconcile,
        ),
        control(
            "broker_connection",
            context,
            &stores.brokers,
            queues.brokers,
            stop(),
            at_once,
            broker_connection::reconcile,
        ),
        control(
            "topic_policy",
            context,
            &stores.topic_policies,
            queues.topic_policies,
            stop(),
            unbounded,
            topic_policy::reconcile,
        ),
    ]
}

fn control<K, F>(
    name: &'static str,
    context: &Arc<Context>,
    store: &Store<Guarded<K>>,
    queue: Queue<K>,
    stop: watch::Receiver<bool>,
    config: Config,
    reconcile: impl Fn(Arc<Context>, Arc<K>) -> F + Send + Sync + 'static,
) -> Running
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    F: Future<Output = Result<Next, Error>> + Send + 'static,
{
    let (for_work, metrics) = (context.clone(), context.metrics.clone());
    let work = move |object: Arc<K>| -> std::pin::Pin<Box<dyn Future<Output = Result<Next, Error>> + Send>> {
        Box::pin(reconcile(for_work.clone(), object))
    };
    Box::pin(run_controller(name, store.clone(), queue, metrics, stop, config, work))
}

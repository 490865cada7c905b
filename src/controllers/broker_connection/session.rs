//! Starts the session with a broker, and follows it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::controller::Controller;
use super::observe::Observed;
use crate::api::{BrokerConnection, Kind, Mode, TopicPolicy};
use crate::brokers::BrokerFailure;
use crate::brokers::kafka::{ClientAccess, KafkaAdmin, KafkaConfig};
use crate::brokers::records::{RecordStore, Records};
use crate::brokers::registry::{Broker, ReportedDrift};
use crate::brokers::session::Session;
use crate::brokers::state::{Context, SessionMode, State};
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::kind::IndexKey;
use crate::controllers::shared::signal::{Signal, Signals};
use crate::domain::name::Name;
use crate::kubernetes::scope::NamespaceScope;
use crate::stalls::elsewhere;

/// For how long changes of a session are collected before they are reported.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How many ACLs the policies of one namespace may have, unless the connection says otherwise.
const MAX_BINDINGS: usize = 10_000;
/// How many credentials of clients are tried on a broker at once.
const LOGINS: usize = 16;

/// The session of a connection: the running one, or a new one when what it was started from has changed.
///
/// # Errors
/// When the records of the broker cannot be read.
pub async fn session(
    controller: &Controller,
    observed: &Observed,
    config: &KafkaConfig,
) -> Result<Arc<Broker>, BrokerFailure> {
    let (name, spec, settings) = (observed.name(), &observed.connection.spec, &controller.settings);
    let mode = SessionMode {
        enforce: spec.mode.unwrap_or_default() == Mode::Enforce,
        absent: spec.absent_policies.unwrap_or_default(),
        resync: settings.broker_resync,
        absent_for: settings.absent_policies_after,
        per_namespace: spec.max_bindings_per_namespace.map_or(MAX_BINDINGS, |max| max as usize),
    };
    let is_same = |broker: &Arc<Broker>| broker.source == config.digest() && broker.mode == mode;
    if let Some(broker) = controller.brokers.get(name).filter(is_same) {
        return Ok(broker);
    }
    let access =
        ClientAccess { bootstrap_servers: spec.kafka.bootstrap_servers.clone(), ca_pem: config.ca_pem().to_owned() };
    let store = controller.record_store(name);
    let stored = store.load().await?;
    let records = elsewhere(move || Records::new(stored)).await;
    let (policies, scope) = (controller.policies.clone(), settings.scope.clone());
    let metrics = controller.metrics.clone();
    let context = Context {
        exists: Arc::new(move |uid: &str, policy: &str| exists(&policies, &scope, uid, policy)),
        fence: controller.fence.clone(),
        held: Arc::new(move |step| metrics.held(BrokerConnection::KIND.controller(), step)),
    };
    let session = Session::start::<KafkaAdmin, _>(name, config.clone(), mode, (records, store), context);
    follow(controller.signals.clone(), name, &session);
    let logins = Arc::new(Semaphore::new(LOGINS));
    let (source, reported) = (config.digest().to_owned(), ReportedDrift::default());
    let addresses = settings.broker_addresses.clone();
    let broker = Broker { access, addresses, session, mode, source, logins, reported };
    let broker = controller.brokers.set(name, broker);
    controller.signals.emit(Signal::BrokerChanged(name.into()));
    Ok(broker)
}

/// Whether a policy exists. One that cannot be read exists, and so does one of a namespace that is not the operator's concern.
fn exists(policies: &Handle<TopicPolicy>, scope: &NamespaceScope, uid: &str, policy: &str) -> bool {
    let (namespace, name) = policy.split_once('/').unwrap_or_default();
    let is_unreadable = || policies.store().find(&Name::new(Some(namespace), name)).is_some_and(|found| found.is_err());
    policies.has(&IndexKey::Uid(uid.into())) || !scope.includes(Some(namespace)) || is_unreadable()
}

/// Reports changes of a session, and wakes everybody who waits for the broker when it can be used again. Ends with the
/// session.
fn follow(signals: Signals, name: &str, session: &Session) {
    let (name, mut changes): (Arc<str>, _) = (name.into(), session.state());
    tokio::spawn(async move {
        let (mut before, mut cluster) = (State::default(), None);
        while changes.changed().await.is_ok() {
            tokio::time::sleep(DEBOUNCE).await;
            let state = changes.borrow_and_update().clone();
            signals.emit(Signal::BrokerReported(name.clone()));
            // Another cluster has nothing of what was applied.
            if let (Some(now), Some(then)) = (state.cluster(), &cluster)
                && now != then
            {
                signals.emit(Signal::BrokerChanged(name.clone()));
            }
            cluster = state.cluster().cloned().or(cluster);
            if state.groups_released != before.groups_released {
                signals.emit(Signal::GroupsReleased(name.clone()));
            }
            if state.is_up() && (!before.is_up() || state.may_change() != before.may_change()) {
                signals.emit(Signal::BrokerUp(name.clone()));
            }
            // ACLs that the broker has lost and that cannot be restored are not active any more.
            if state.missing.count > before.missing.count {
                signals.emit(Signal::BrokerLostGrants(name.clone()));
            }
            before = state;
        }
    });
}

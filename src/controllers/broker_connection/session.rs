//! Starts the session with a broker, and follows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::controller::Controller;
use super::observe::Observed;
use crate::api::{BrokerConnection, Mode};
use crate::brokers::kafka::{ClientAccess, KafkaAdmin, KafkaConfig};
use crate::brokers::registry::{Broker, ReportedDrift};
use crate::brokers::session::{Session, State};
use crate::controllers::shared::kind::IndexKey;
use crate::controllers::shared::signal::{Signal, Signals};
use crate::domain::grants::Bindings;
use crate::kubernetes::uid;

/// For how long changes of a session are collected before they are reported.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How many credentials of clients are tried on a broker at once.
const LOGINS: usize = 16;

/// The session of a connection: the running one, or a new one when what it was started from has changed.
pub fn session(controller: &Controller, observed: &Observed, config: &KafkaConfig) -> Arc<Broker> {
    let (name, spec) = (observed.name(), &observed.connection.spec);
    let enforce = spec.mode.unwrap_or_default() == Mode::Enforce;
    let is_same = |broker: &Arc<Broker>| broker.source == config.digest() && broker.observes != enforce;
    if let Some(broker) = controller.brokers.get(name).filter(is_same) {
        return broker;
    }
    let access =
        ClientAccess { bootstrap_servers: spec.kafka.bootstrap_servers.clone(), ca_pem: config.ca_pem().to_owned() };
    let (resync, fence) = (controller.settings.broker_resync, controller.fence.clone());
    let claims = recorded(controller, name);
    let session = Session::start::<KafkaAdmin>(name, config.clone(), enforce, resync, claims, fence);
    follow(controller.signals.clone(), name, &session);
    let logins = Arc::new(Semaphore::new(LOGINS));
    let (source, reported) = (config.digest().to_owned(), ReportedDrift::default());
    let broker = Broker { access, session, observes: !enforce, source, logins, reported };
    let broker = controller.brokers.set(name, broker);
    controller.signals.emit(Signal::BrokerChanged(name.into()));
    broker
}

/// What every policy has recorded on this broker. A policy that is being deleted is left out: its rights are not restored.
fn recorded(controller: &Controller, name: &str) -> HashMap<String, Bindings> {
    let policies = controller.policies.using(&IndexKey::cluster::<BrokerConnection>(name));
    let policies = policies.filter(|policy| policy.metadata.deletion_timestamp.is_none());
    policies
        .map(|policy| {
            let recorded = controller.policies.status(&policy).applied;
            (uid(&policy), recorded.into_iter().collect())
        })
        .collect()
}

/// Reports changes of a session, and wakes everybody who waits for the broker when it can be used again. Ends with the
/// session.
fn follow(signals: Signals, name: &str, session: &Session) {
    let (name, mut changes): (Arc<str>, _) = (name.into(), session.state());
    tokio::spawn(async move {
        let mut before = State::default();
        while changes.changed().await.is_ok() {
            tokio::time::sleep(DEBOUNCE).await;
            let state = changes.borrow_and_update().clone();
            signals.emit(Signal::BrokerReported(name.clone()));
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

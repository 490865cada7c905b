//! `BrokerConnection`: keeps a session with the broker, and reports on it.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Context, wait};
use crate::api::{BrokerConnection, BrokerConnectionStatus, ConditionType, Conditions, Mode, Reason, TopicPolicy};
use crate::brokers::kafka::{ClientAccess, KafkaAdmin, KafkaConfig};
use crate::brokers::registry::{Broker, Told};
use crate::brokers::session::{Session, State};
use crate::domain::grants::Bindings;
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::status::set_finalizer;
use crate::kubernetes::uid;

/// Keeps a connection until no policy has rights there any more.
pub const FINALIZER: &str = "credence.dev/in-use";
/// How long a new session may take before it is reported as connecting.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// How long changes of a session gather before they are reported.
const GATHER: Duration = Duration::from_millis(200);
/// How many clients' credentials are tried on a broker at once.
const LOGINS: usize = 16;

/// Keeps the session of one connection.
///
/// # Errors
/// What the API server said.
pub async fn reconcile(context: Arc<Context>, connection: Arc<BrokerConnection>) -> Result<Done, Error> {
    let current = context.statuses.brokers.current(&*connection, connection.status.as_ref());
    let name = connection.metadata.name.clone().unwrap_or_default();
    let mut conditions = Conditions::new();
    let mut status = BrokerConnectionStatus::default();

    if connection.metadata.deletion_timestamp.is_some() {
        let users = users(&context, &name);
        if users == 0 {
            if context.brokers.remove(&name) {
                context.users_of_broker(&name);
            }
            set_finalizer(&context.client, &*connection, FINALIZER, false).await?;
            return Ok(Done::gone());
        }
        let message = format!("{users} TopicPolicies still have rights on this broker; it goes when they are deleted");
        conditions.unmet(ConditionType::Accepted, Reason::InUse, message);
    } else {
        if !set_finalizer(&context.client, &*connection, FINALIZER, true).await? {
            return Ok(Done::gone());
        }
        conditions.met(ConditionType::Accepted, Reason::Valid, "the spec is valid");
    }

    let mut next = None;
    let mut drift = (0, 0);
    match configure(&context, &connection).await? {
        // A session that runs goes on with the credential of before.
        Err((reason, message)) => conditions.unmet(ConditionType::Connected, reason, message),
        Ok(config) => {
            let expires = config.not_after;
            next = Some(wait(Timestamp::now(), expires));
            let broker = session(&context, &connection, config);
            let mut first = broker.session.state();
            // A session that has just begun is not news; its first answer is.
            let _ = timeout(FIRST_ANSWER, first.wait_for(|state| state.connection.is_some())).await;
            let state = broker.session.state().borrow().clone();
            drift = broker.told.news(state.drift_found, state.drift_repaired);
            status.credential_expires_at = Some(Time(expires));
            plan::describe(&connection, &state, &mut status, &mut conditions);
            if expires <= Timestamp::now() {
                let message = format!(
                    "the operator's certificate in the Secret {} expired at {expires}: a connection that is open goes \
                     on, and no other can be made. Put a new one in",
                    connection.spec.kafka.admin_secret_ref.name
                );
                conditions.unmet(ConditionType::Connected, Reason::AdminSecretInvalid, message);
            }
        }
    }
    conditions.conclude(format!("applies policies for {}", connection.spec.environment));
    status.observed_generation = connection.metadata.generation;
    status.conditions = conditions.merge(&current.conditions, connection.metadata.generation, Timestamp::now());
    context.statuses.brokers.write(&context.client, &*connection, &current, &status).await?;
    context.events.transition(&*connection, &current.conditions, &conditions).await;
    report_drift(&context, &connection, &name, drift).await;
    Ok(Done::with(&conditions, next))
}

/// How many policies have rights on the broker, or are about to.
fn users(context: &Context, name: &str) -> usize {
    let uses = |policy: &TopicPolicy| {
        policy.spec.broker == name && policy.status.as_ref().is_some_and(|status| !status.applied.is_empty())
    };
    context.stores.topic_policies.valid(None).filter(uses).count()
}

/// Reads what it takes to connect.
async fn configure(
    context: &Context,
    connection: &BrokerConnection,
) -> Result<Result<KafkaConfig, (Reason, String)>, Error> {
    let kafka = &connection.spec.kafka;
    let (namespace, name) = (&context.settings.namespace, &kafka.admin_secret_ref.name);
    let Some(Secret { data: Some(data), .. }) = context.secrets.read(namespace, name).await? else {
        let message = format!(
            "the Secret {name} does not exist in {namespace}; create it with tls.crt, tls.key and ca.crt of a \
             principal that has Alter and Describe on the cluster"
        );
        return Ok(Err((Reason::AdminSecretNotFound, message)));
    };
    let text = |key: &str| data.get(key).map(|value| value.0.clone()).unwrap_or_default();
    let (metrics, broker) = (context.metrics.clone(), connection.metadata.name.clone().unwrap_or_default());
    let on_request = Arc::new(move |request: &str, answered| metrics.broker_requested(&broker, request, answered));
    let (chain, key, ca) = (text("tls.crt"), text("tls.key"), text("ca.crt"));
    let config = KafkaConfig::new(&kafka.bootstrap_servers, &chain, &key, &ca, on_request);
    Ok(config.map_err(|message| (Reason::AdminSecretInvalid, format!("the Secret {name}: {message}"))))
}

/// The session of a connection: the one that runs, or a new one when what it was started from has changed.
fn session(context: &Arc<Context>, connection: &BrokerConnection, config: KafkaConfig) -> Arc<Broker> {
    let name = connection.metadata.name.clone().unwrap_or_default();
    let source = format!("{}/{:?}", config.digest(), connection.spec.mode);
    if let Some(broker) = context.brokers.get(&name).filter(|broker| broker.source == source) {
        return broker;
    }
    let access = ClientAccess {
        bootstrap_servers: connection.spec.kafka.bootstrap_servers.clone(),
        ca_pem: config.ca_pem().to_owned(),
    };
    let enforce = connection.spec.mode.unwrap_or_default() == Mode::Enforce;
    let claims = claims(context, &name);
    let session =
        Session::start::<KafkaAdmin>(config, enforce, context.settings.broker_resync, claims, context.fence.clone());
    follow(context, &name, &session);
    let logins = Arc::new(Semaphore::new(LOGINS));
    let broker = Broker { access, session, observes: !enforce, source, logins, told: Told::default() };
    let broker = context.brokers.set(&name, broker);
    context.users_of_broker(&name);
    broker
}

/// What every policy has recorded on this broker. What is being deleted claims nothing: its rights are not put back.
fn claims(context: &Context, name: &str) -> HashMap<String, Bindings> {
    let claims = |policy: &TopicPolicy| policy.spec.broker == name && policy.metadata.deletion_timestamp.is_none();
    let policies = context.stores.topic_policies.valid(None).filter(claims);
    policies
        .map(|policy| {
            let recorded = context.statuses.topic_policies.current(&policy, policy.status.as_ref()).applied;
            (uid(&policy), recorded.into_iter().collect())
        })
        .collect()
}

/// Reports changes of a session, and asks everybody who waits for the broker to look again when it can be asked again.
fn follow(context: &Arc<Context>, name: &str, session: &Session) {
    let (context, name, mut changes) = (Arc::downgrade(context), name.to_owned(), session.state());
    tokio::spawn(async move {
        let mut before = State::default();
        while changes.changed().await.is_ok() {
            tokio::time::sleep(GATHER).await;
            let state = changes.borrow_and_update().clone();
            let Some(context) = context.upgrade() else { return };
            context.triggers.brokers.fire(&Name::new(None, &name));
            if state.is_up() && (!before.is_up() || state.may_change() != before.may_change()) {
                context.unready_users_of_broker(&name);
            }
            // What the broker has lost and cannot be put back is not in force any more.
            if state.missing.count > before.missing.count {
                context.policies_of_broker(&name);
            }
            before = state;
        }
    });
}

/// Counts drift, and says once that lost bindings were put back.
async fn report_drift(context: &Context, connection: &BrokerConnection, name: &str, (found, repaired): (u64, u64)) {
    if found > 0 {
        context.metrics.broker_drift(name, found, repaired);
    }
    if repaired > 0 {
        let note = format!("put back {repaired} ACLs that the broker had lost");
        context.events.warning(connection, Reason::DriftRepaired, "Repair", note).await;
    }
}

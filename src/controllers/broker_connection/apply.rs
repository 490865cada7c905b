//! Carries out the plan of a broker connection, and writes its status.

use std::time::Duration;

use tokio::time::timeout;

use super::controller::{Controller, FINALIZER};
use super::observe::Observed;
use super::plan::{Plan, describe};
use super::session::session;
use crate::api::Reason;
use crate::brokers::BrokerFailure;
use crate::brokers::registry::Drift;
use crate::brokers::state::State;
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::signal::Signal;
use crate::controllers::shared::timing::wait;
use crate::domain::refusal::Refusal;
use crate::domain::text::counted;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;

/// How long a new session may take before it is reported as connecting.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

pub async fn apply(controller: &Controller, observed: &Observed, plan: Plan<'_>) -> Result<Done, Error> {
    let connection = &*observed.connection;
    let config = match plan {
        Plan::Release => return release(controller, observed).await,
        Plan::Session(config) => Ok(config),
        Plan::Refuse(refusal) => Err(refusal.clone()),
        Plan::Abandon => Err(abandon(controller, observed).await?),
    };
    let is_deleted = connection.metadata.deletion_timestamp.is_some();
    if !is_deleted && !controller.handle.set_finalizer(connection, FINALIZER, true).await? {
        return Ok(Done::gone());
    }
    let mut drift = Drift::default();
    let mut next = None;
    let session = match config {
        Err(refusal) => Err(refusal),
        Ok(config) => {
            let broker = session(controller, observed, config).await.map_err(unrecorded)?;
            let mut state = broker.session.state();
            // Status is written once, with the first answer, instead of "connecting" before it.
            let _ = timeout(FIRST_ANSWER, state.wait_for(State::has_result)).await;
            let state = broker.session.state().borrow().clone();
            drift = broker.reported.take_unreported(Drift { found: state.drift_found, repaired: state.drift_repaired });
            next = Some(wait(observed.now, config.not_after));
            Ok((config, state))
        }
    };
    let (status, mut conditions) = describe(observed, session.as_ref().map(|(config, state)| (*config, state)));
    let ready = format!("applies policies for {}", connection.spec.environment);
    let conclusion =
        Conclusion { object: connection, current: &observed.status, status, ready, next, now: observed.now };
    let done = controller.handle.conclude(conclusion, &mut conditions).await?;
    report_drift(controller, observed, drift).await;
    Ok(done.unwrap_or_else(Done::gone))
}

/// Ends the session, and drops what was recorded.
async fn forget(controller: &Controller, observed: &Observed) -> Result<(), Error> {
    if controller.brokers.remove(observed.name()) {
        controller.signals.emit(Signal::BrokerChanged(observed.name().into()));
    }
    controller.record_store(observed.name()).drop_all().await.map_err(unrecorded)
}

fn unrecorded(failure: BrokerFailure) -> Error {
    Error::Unavailable(failure.message)
}

/// Gives a broker up that is gone for ever; returns what is said about it.
async fn abandon(controller: &Controller, observed: &Observed) -> Result<Refusal, Error> {
    forget(controller, observed).await?;
    let message = "spec.decommissioned: the broker is gone for ever; nothing is applied or revoked. Its TopicPolicies can \
                   be deleted";
    Ok(Refusal::new(Reason::Decommissioned, message))
}

/// Ends the session, and lets the object go.
async fn release(controller: &Controller, observed: &Observed) -> Result<Done, Error> {
    forget(controller, observed).await?;
    controller.handle.set_finalizer(&observed.connection, FINALIZER, false).await?;
    Ok(Done::gone())
}

/// Counts drift, and publishes an event once lost ACLs were restored.
async fn report_drift(controller: &Controller, observed: &Observed, drift: Drift) {
    if drift.found > 0 {
        controller.metrics.broker_drift(observed.name(), drift.found, drift.repaired);
    }
    if drift.repaired > 0 {
        let repaired = counted(usize::try_from(drift.repaired).unwrap_or(usize::MAX), "ACL", "ACLs");
        let note = format!("repaired {repaired} that the broker had lost");
        controller.events.warning(&*observed.connection, Reason::DriftRepaired, "Repair", note).await;
    }
}

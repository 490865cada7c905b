//! Revokes what a policy applied, once it is being deleted.

use super::apply::{RETRY, nothing};
use super::controller::{Controller, FINALIZER};
use super::observe::{Observed, created};
use super::plan;
use crate::api::{BrokerConnection, ConditionType, Conditions, DeletionPolicy, Reason, TopicPolicy};
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::timing::retry_in;
use crate::domain::grants::Bindings;
use crate::domain::text::counted;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::status::has_finalizer;
use crate::kubernetes::uid;

pub async fn clean_up(controller: &Controller, observed: &Observed) -> Result<Done, Error> {
    let (policy, current) = (&*observed.policy, &observed.current);
    if !has_finalizer(policy, FINALIZER) {
        return Ok(Done::gone());
    }
    let recorded = recorded(policy, observed).await;
    if let Err(why) = revoke(policy, observed, &recorded).await {
        let since = policy.metadata.deletion_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        let mut conditions = Conditions::new();
        let message = format!(
            "deleted at {since}; waiting to revoke {}: {why}{}",
            counted(recorded.len(), "ACL", "ACLs"),
            if may_orphan(observed) { ". To leave them on the broker, set deletionPolicy: Orphan" } else { "" }
        );
        conditions.unmet(ConditionType::Applied, Reason::CleanupPending, message);
        let pause = retry_in(&current.status.conditions, ConditionType::Applied, current.now, RETRY);
        let conclusion = Conclusion {
            object: policy,
            current: &current.status,
            status: current.status.clone(),
            ready: String::new(),
            next: Some(pause),
            now: current.now,
        };
        let done = controller.handle.conclude(conclusion, &mut conditions).await?;
        return Ok(done.unwrap_or_else(Done::gone));
    }
    if let Some(broker) = &current.broker {
        // Before the object goes: what is still recorded for an absent policy is revoked, and an orphan's rights are to stay.
        broker.session.forget(&uid(policy)).await.map_err(|failure| Error::Unavailable(failure.message))?;
    }
    controller.handle.set_finalizer(policy, FINALIZER, false).await?;
    Ok(Done::gone())
}

/// Whether the connection lets a policy leave its rights at the broker.
fn may_orphan(observed: &Observed) -> bool {
    observed.connection.as_ref().is_some_and(|connection| connection.spec.allow_orphan == Some(true))
}

/// What has to be revoked. Without a session only the status says it.
async fn recorded(policy: &TopicPolicy, observed: &Observed) -> Bindings {
    let applied = observed.current.applied();
    match &observed.current.broker {
        Some(broker) => broker.session.recorded(&uid(policy), created(policy), &applied).await,
        None => applied,
    }
}

/// Revokes what was applied, unless it is to stay; the error says what is in the way.
async fn revoke(policy: &TopicPolicy, observed: &Observed, recorded: &Bindings) -> Result<(), String> {
    let is_gone = |connection: &BrokerConnection| connection.spec.decommissioned == Some(true);
    let wants_orphan = policy.spec.deletion_policy == Some(DeletionPolicy::Orphan);
    // The platform removed the connection, or said that its broker is gone for ever: nothing can be revoked any more.
    if observed.connection.as_ref().is_none_or(is_gone) || recorded.is_empty() {
        return Ok(());
    }
    let connection = &policy.spec.broker;
    let Some(broker) = &observed.current.broker else {
        return Err(format!("the BrokerConnection {connection} is not ready"));
    };
    if wants_orphan && may_orphan(observed) {
        return Ok(());
    }
    match broker.session.ensure(nothing(policy, &observed.current, &plan::plan(observed))).await {
        Err(failure) => Err(failure.message),
        Ok(outcome) if !outcome.difference.remove.is_empty() && broker.observes() => {
            Err(format!("the BrokerConnection {connection} is in mode Observe"))
        }
        Ok(outcome) => match outcome.failures.into_iter().next() {
            Some((binding, why)) => Err(format!("{binding}: {why}")),
            None => Ok(()),
        },
    }
}

//! Revokes what a policy applied, once it is being deleted.

use super::apply::RETRY;
use super::controller::{Controller, FINALIZER};
use super::observe::Current;
use crate::api::{ConditionType, Conditions, DeletionPolicy, Reason, TopicPolicy};
use crate::brokers::session::Demand;
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::timing::retry_in;
use crate::domain::grants::Bindings;
use crate::domain::text::counted;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::status::has_finalizer;
use crate::kubernetes::uid;

pub async fn clean_up(controller: &Controller, policy: &TopicPolicy, current: &Current) -> Result<Done, Error> {
    if !has_finalizer(policy, FINALIZER) {
        return Ok(Done::gone());
    }
    if let Err(why) = revoke(policy, current).await {
        let since = policy.metadata.deletion_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        let mut conditions = Conditions::new();
        let message = format!(
            "deleted at {since}; waiting to revoke {}: {why}. To leave them on the broker, set deletionPolicy: Orphan",
            counted(current.status.applied.len(), "ACL", "ACLs")
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
        broker.session.forget(&uid(policy)).await;
    }
    controller.handle.set_finalizer(policy, FINALIZER, false).await?;
    Ok(Done::gone())
}

/// Revokes what was applied, unless it is to stay; the error says what is in the way.
async fn revoke(policy: &TopicPolicy, current: &Current) -> Result<(), String> {
    let recorded: Bindings = current.status.applied.iter().cloned().collect();
    if recorded.is_empty() || policy.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Orphan {
        return Ok(());
    }
    let connection = &policy.spec.broker;
    let Some(broker) = &current.broker else {
        return Err(format!("the BrokerConnection {connection} is not ready"));
    };
    let demand = Demand { policy: uid(policy), wanted: Bindings::new(), recorded, enforce: true };
    match broker.session.ensure(demand).await {
        Err(failure) => Err(failure.message),
        Ok(outcome) if !outcome.difference.remove.is_empty() && broker.observes => {
            Err(format!("the BrokerConnection {connection} is in mode Observe"))
        }
        Ok(outcome) => match outcome.failures.into_iter().next() {
            Some((binding, why)) => Err(format!("{binding}: {why}")),
            None => Ok(()),
        },
    }
}

//! Brings the keys of a webhook to what was decided.

use std::time::{Duration, Instant};

use super::controller::Controller;
use super::keys;
use super::observe::Observed;
use super::stored_key::StoredKey;
use crate::api::Reason;
use crate::controllers::shared::timing::wait;
use crate::controllers::shared::webhook::{Webhook, key_secret};
use crate::domain::key_set::{Decision, KeyRecord};
use crate::domain::refusal::Refusal;
use crate::edge::webhook::route::KeyUse;
use crate::kubernetes::error::Error;
use crate::kubernetes::owned::Contended;
use crate::kubernetes::uid;

/// The keys as they are now, and what is wrong with them.
#[derive(Default)]
pub struct Keys {
    pub records: Vec<KeyRecord>,
    /// The keys with their material, when it was read or written already.
    pub material: Option<Vec<StoredKey>>,
    /// Why they are not as they should be.
    pub problem: Option<Refusal>,
    /// When to look again.
    pub next: Option<Duration>,
    /// Whether the route that is served stays as it is.
    pub keeps_route: bool,
}

impl Keys {
    fn of(found: Vec<StoredKey>) -> Self {
        let records = found.iter().map(|key| key.record.clone()).collect();
        Self { records, material: Some(found), ..Self::default() }
    }

    fn none(refusal: Refusal) -> Self {
        Self { problem: Some(refusal), material: Some(Vec::new()), ..Self::default() }
    }
}

/// Brings generated keys to what was decided.
///
/// # Errors
/// What the API server answered.
pub async fn generated<W: Webhook>(
    controller: &Controller<W>,
    observed: &Observed<W>,
    decision: Decision,
) -> Result<Keys, Error> {
    let (namespace, name) = (observed.namespace(), key_secret(&*observed.webhook));
    let (secrets, now, owner) = (&controller.secrets, Instant::now(), uid(&*observed.webhook));
    let place = (namespace, name.as_str(), owner.as_str());
    if let Some(Contended { message, wait }) = secrets.held_back(place, now).filter(|_| observed.keys_lost) {
        let problem = Some(Refusal::new(Reason::Contended, message));
        return Ok(Keys { problem, next: Some(wait), keeps_route: true, ..Keys::default() });
    }
    let until = wait(observed.now, decision.until);
    let before = observed.generated.as_ref().and_then(|generated| generated.as_ref().ok());
    let mut keys = if decision.make.is_some() || before != Some(&decision.keys) {
        match keys::write(controller, observed, &decision).await {
            Ok(written) => Keys::of(written),
            Err(error @ Error::NotOwned { .. }) => {
                return Ok(Keys::none(Refusal::new(Reason::NotOwned, error.to_string())));
            }
            Err(error) => return Err(error),
        }
    } else {
        Keys { records: decision.keys, ..Keys::default() }
    };
    if observed.keys_lost {
        let altered_by = observed.generated.as_ref().and_then(|generated| generated.as_ref().err());
        secrets.repaired(place, altered_by, now);
    }
    let contended = secrets.contended(place, now);
    let over_in = contended.as_ref().map(|contended| contended.wait);
    keys.problem = contended.map(|contended| Refusal::new(Reason::Contended, contended.message));
    keys.next = [Some(until), over_in].into_iter().flatten().min();
    Ok(keys)
}

/// Takes the keys that their owner provides. Keys that were generated before are not needed any more.
///
/// # Errors
/// What the API server answered.
pub async fn external<W: Webhook>(
    controller: &Controller<W>,
    observed: &Observed<W>,
    secret: &str,
) -> Result<Keys, Error> {
    let (webhook, namespace) = (&*observed.webhook, observed.namespace());
    match keys::external(controller, webhook, secret, KeyUse::Deliveries(webhook.route_spec())).await? {
        Ok(found) => {
            controller.secrets.delete(namespace, &key_secret(webhook), Some(&uid(webhook))).await?;
            let problem = found.problem(secret).map(|message| Refusal::new(Reason::KeysNotUsed, message));
            Ok(Keys { problem, ..Keys::of(found.used) })
        }
        Err(refusal) => Ok(Keys::none(refusal)),
    }
}

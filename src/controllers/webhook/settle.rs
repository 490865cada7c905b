//! Brings the keys of a webhook to what was decided, and says what stands against it.

use std::time::{Duration, Instant};

use super::super::context::Context;
use super::super::wait;
use super::keys::StoredKey;
use super::observe::{Observed, key_secret};
use super::{Webhook, keys};
use crate::api::Reason;
use crate::domain::key_set::{Decision, KeyRecord};
use crate::kubernetes::error::Error;
use crate::kubernetes::uid;

/// Keys with their material; read only when it is needed.
pub type Material = Option<Vec<StoredKey>>;

/// The keys as they are now, and what stands against them.
#[derive(Default)]
pub struct Keys {
    pub records: Vec<KeyRecord>,
    pub material: Material,
    /// Why they are not as they should be.
    pub problem: Option<(Reason, String)>,
    /// When to look again.
    pub next: Option<Duration>,
    /// Whether what is served stays as it is.
    pub held: bool,
}

impl Keys {
    fn of(found: Vec<StoredKey>) -> Self {
        let records = found.iter().map(|key| key.record.clone()).collect();
        Self { records, material: Some(found), ..Self::default() }
    }

    fn none(reason: Reason, message: String) -> Self {
        Self { problem: Some((reason, message)), ..Self::default() }
    }
}

/// Brings the keys that the operator makes to what was decided.
///
/// # Errors
/// What the API server said.
pub async fn generated<W: Webhook>(
    context: &Context,
    webhook: &W,
    observed: &Observed<W>,
    decision: Decision,
) -> Result<Keys, Error> {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let (name, secrets, now) = (key_secret(webhook), &context.webhook_secrets, Instant::now());
    if let Some((message, pause)) = secrets.held_back(namespace, &name, now).filter(|_| observed.keys_lost) {
        let problem = Some((Reason::Contended, message));
        return Ok(Keys { problem, next: Some(pause), held: true, ..Keys::default() });
    }
    let until = wait(observed.now, decision.until);
    let before = observed.made.as_ref().and_then(|made| made.as_ref().ok());
    let mut keys = if decision.make.is_some() || before != Some(&decision.keys) {
        match keys::write(context, webhook, &decision.keys, decision.make, observed.now).await {
            Ok(written) => Keys::of(written),
            Err(error @ Error::NotOwned { .. }) => return Ok(Keys::none(Reason::NotOwned, error.to_string())),
            Err(error) => return Err(error),
        }
    } else {
        Keys { records: decision.keys, ..Keys::default() }
    };
    if observed.keys_lost {
        let who = observed.made.as_ref().and_then(|made| made.as_ref().err());
        secrets.repaired(namespace, &name, who.map(String::as_str), now);
    }
    let fight = secrets.fight(namespace, &name, now);
    let calm_in = fight.as_ref().map(|(_, calm_in)| *calm_in);
    keys.problem = fight.map(|(message, _)| (Reason::Contended, message));
    keys.next = [Some(until), calm_in].into_iter().flatten().min();
    Ok(keys)
}

/// Takes the keys that somebody else keeps; those that the operator had made are of no use then.
///
/// # Errors
/// What the API server said.
pub async fn external<W: Webhook>(context: &Context, webhook: &W, secret: &str) -> Result<Keys, Error> {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    match keys::external(context, webhook, secret).await? {
        Ok(found) => {
            context.webhook_secrets.delete(namespace, &key_secret(webhook), &uid(webhook)).await?;
            Ok(Keys::of(found))
        }
        Err(message) => Ok(Keys::none(Reason::KeysInvalid, message)),
    }
}

//! The broker account that a webhook writes to a topic with: that of a `ServiceIdentity` in its own namespace.

use super::controller::Controller;
use crate::api::{KafkaTarget, Reason};
use crate::contract::route::AccountDocument;
use crate::controllers::shared::webhook::Webhook;
use crate::domain::refusal::Refusal;
use crate::domain::secret::SecretText;
use crate::kubernetes::error::Error;

/// Name of the Secret with the credential.
fn secret_of(target: &KafkaTarget) -> String {
    format!("{}.{}", target.service_identity, target.broker)
}

/// The fingerprint of the credential of the account; `None` for a webhook that needs no account.
pub fn find<W: Webhook>(controller: &Controller<W>, webhook: &W) -> Option<Result<String, Refusal>> {
    let target = webhook.kafka()?;
    let KafkaTarget { service_identity: identity, broker, .. } = target;
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let Some(found) = controller.identities.store().get(Some(namespace), identity) else {
        let message = format!("the ServiceIdentity {identity} does not exist; create it, or name another one");
        return Some(Err(Refusal::new(Reason::IdentityNotFound, message)));
    };
    if !found.has_account(broker) {
        let message = format!("the ServiceIdentity {identity} has no account on {broker}; add it to its spec.brokers");
        return Some(Err(Refusal::new(Reason::IdentityHasNoAccount, message)));
    }
    let stored = controller.certificates.get(namespace, &secret_of(target));
    let facts = stored.and_then(|record| record.facts.clone().ok());
    Some(facts.map(|facts| facts.fingerprint).ok_or_else(|| {
        let message =
            format!("the ServiceIdentity {identity} has no credential for {broker} now; see its status conditions");
        Refusal::new(Reason::IdentityNotReady, message)
    }))
}

/// The credential itself.
///
/// # Errors
/// What the API server answered.
pub async fn read<W: Webhook>(controller: &Controller<W>, webhook: &W) -> Result<Option<AccountDocument>, Error> {
    let Some(target) = webhook.kafka() else { return Ok(None) };
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let Some(secret) = controller.certificates.read(namespace, &secret_of(target)).await? else { return Ok(None) };
    let data = secret.data.unwrap_or_default();
    let text = |entry: &str| data.get(entry).and_then(|it| String::from_utf8(it.0.clone()).ok()).unwrap_or_default();
    Ok(Some(AccountDocument {
        bootstrap_servers: text("bootstrap-servers").split(',').map(ToOwned::to_owned).collect(),
        principal: text("principal"),
        chain: text("tls.crt"),
        key: SecretText::new(text("tls.key")),
        ca: text("ca.crt"),
    }))
}

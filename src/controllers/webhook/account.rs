//! The broker account that a webhook writes to a topic with: that of a `ServiceIdentity` in its own namespace.

use super::controller::Controller;
use crate::api::{KafkaTarget, Reason};
use crate::brokers::kafka::ClientAccess;
use crate::contract::route::AccountDocument;
use crate::controllers::shared::webhook::Webhook;
use crate::domain::identity::digest;
use crate::domain::refusal::Refusal;
use crate::domain::secret::SecretText;
use crate::issuers::pem::{self, Certificate};
use crate::kubernetes::error::Error;

/// Name of the Secret with the credential.
fn secret_of(target: &KafkaTarget) -> String {
    format!("{}.{}", target.service_identity, target.broker)
}

/// The account of a webhook: which credential it has, and how its broker is reached. Of its Secret, which tenants can write, only
/// the credential with this fingerprint is used; addresses and authorities are those of the `BrokerConnection`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// SHA-256 of the certificate (DER), in hexadecimal.
    pub fingerprint: String,
    /// The principal under which the broker knows it.
    pub principal: String,
    /// Addresses and authorities of the broker.
    pub access: ClientAccess,
}

impl Account {
    /// Changes with everything that the edge has to know of the account.
    pub fn digest(&self) -> String {
        let servers = self.access.bootstrap_servers.iter().map(String::as_str);
        let parts = [self.fingerprint.as_str(), self.principal.as_str(), self.access.ca_pem.as_str()];
        digest(parts.into_iter().chain(servers))
    }
}

/// The account; `None` for a webhook that needs none.
pub fn find<W: Webhook>(controller: &Controller<W>, webhook: &W) -> Option<Result<Account, Refusal>> {
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
    let Some(connected) = controller.brokers.get(broker) else {
        let message = format!("the BrokerConnection {broker} is not ready; see its status conditions");
        return Some(Err(Refusal::new(Reason::BrokerNotReady, message)));
    };
    let stored = controller.certificates.get(namespace, &secret_of(target));
    let fingerprint = stored.and_then(|record| Some(record.facts.as_ref().ok()?.fingerprint.clone()));
    let issued = controller.identities.status(&found).brokers.into_iter().find(|account| account.name == *broker);
    let issued = issued.and_then(|account| Some((account.certificate?.fingerprint, account.principal?)));
    Some(match (fingerprint, issued) {
        (Some(stored), Some((fingerprint, principal))) if stored == fingerprint => {
            Ok(Account { fingerprint, principal, access: connected.access.clone() })
        }
        _ => Err(without_credential(identity, broker)),
    })
}

fn without_credential(identity: &str, broker: &str) -> Refusal {
    let message =
        format!("the ServiceIdentity {identity} has no credential for {broker} now; see its status conditions");
    Refusal::new(Reason::IdentityNotReady, message)
}

/// The account with its credential.
///
/// # Errors
/// What the API server answered.
pub async fn read<W: Webhook>(
    controller: &Controller<W>,
    webhook: &W,
    account: Option<&Account>,
) -> Result<Result<Option<AccountDocument>, Refusal>, Error> {
    let (Some(target), Some(account)) = (webhook.kafka(), account) else { return Ok(Ok(None)) };
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let secret = controller.certificates.read(namespace, &secret_of(target)).await?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let text = |entry: &str| data.get(entry).and_then(|it| String::from_utf8(it.0.clone()).ok()).unwrap_or_default();
    let chain = text("tls.crt");
    let certificates = pem::certificates(chain.as_bytes(), "tls.crt").unwrap_or_default();
    if certificates.first().map(Certificate::fingerprint).as_ref() != Some(&account.fingerprint) {
        return Ok(Err(without_credential(&target.service_identity, &target.broker)));
    }
    Ok(Ok(Some(AccountDocument {
        bootstrap_servers: account.access.bootstrap_servers.clone(),
        principal: account.principal.clone(),
        chain,
        key: SecretText::new(text("tls.key")),
        ca: account.access.ca_pem.clone(),
    })))
}

//! Verifies the broker accounts of an identity, and describes them.

use std::time::Duration;

use super::controller::Controller;
use super::credentials::{Issued, certificate_status, read};
use super::login::Attempt;
use super::observe::Observed;
use super::plan::Slot;
use crate::api::{BrokerAccountStatus, ConditionType, Conditions, Reason, ServiceIdentityStatus};
use crate::brokers::BrokerFailure;
use crate::controllers::shared::timing::retry_in;
use crate::domain::identity::Subject;
use crate::domain::name::Name;
use crate::domain::refusal::Refusal;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Next;

/// How soon an account that a broker refuses is tried again, at first and at most.
const RECHECK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// The broker accounts of an identity.
pub struct Accounts<'a> {
    pub slots: &'a [Slot],
    pub issued: &'a [Issued],
    /// Why the Secrets of some accounts cannot be made yet.
    pub waiting: &'a [Refusal],
    pub subject: &'a Subject,
}

impl Accounts<'_> {
    /// Logs in with the credentials that are new, and describes all accounts.
    pub async fn describe(
        &self,
        controller: &Controller,
        observed: &Observed,
        status: &mut ServiceIdentityStatus,
        conditions: &mut Conditions,
    ) -> Result<Next, Error> {
        let mut problem = self.waiting.first().cloned();
        let mut accounts = Vec::new();
        for (slot, issued) in self.slots.iter().zip(self.issued) {
            let Some(index) = slot.broker else { continue };
            let broker = &observed.brokers[index];
            let known = observed.status.brokers.iter().find(|account| account.name == broker.name);
            let before = known.and_then(|account| account.certificate.as_ref());
            let certificate = certificate_status(observed, slot, issued, before);
            let mut verified = known.and_then(|account| account.verified_fingerprint.clone());
            if let (Some(certificate), Some(broker)) = (&certificate, &broker.broker)
                && issued.problem.is_none()
                && verified.as_ref() != Some(&certificate.fingerprint)
            {
                let attempt = Attempt {
                    broker,
                    identity: Name::of(&*observed.identity),
                    secret: &slot.secret_name,
                    fingerprint: &certificate.fingerprint,
                };
                match verify(controller, &attempt, issued).await? {
                    Ok(()) => verified = Some(certificate.fingerprint.clone()),
                    Err(failure) => _ = problem.get_or_insert(Refusal::new(failure.reason, failure.message)),
                }
            }
            accounts.push(BrokerAccountStatus {
                name: broker.name.clone(),
                principal: Some(self.subject.kafka_principal()),
                certificate,
                verified_fingerprint: verified,
            });
        }
        status.brokers = accounts;
        let Some(Refusal { reason, message }) = problem else {
            if !status.brokers.is_empty() {
                let names: Vec<&str> = status.brokers.iter().map(|account| account.name.as_str()).collect();
                let message = format!("authenticated to {} as {}", names.join(", "), self.subject.kafka_principal());
                conditions.met(ConditionType::BrokerAccess, Reason::LoginVerified, message);
            }
            return Ok(None);
        };
        conditions.unmet(ConditionType::BrokerAccess, reason, message);
        Ok(Some(retry_in(&observed.status.conditions, ConditionType::BrokerAccess, observed.now, RECHECK)))
    }
}

/// Whether the broker accepts a credential. What was just written need not be read again.
async fn verify(
    controller: &Controller,
    attempt: &Attempt<'_>,
    issued: &Issued,
) -> Result<Result<(), BrokerFailure>, Error> {
    if let Some(answer) = controller.logins.known(attempt) {
        return Ok(answer);
    }
    let credential = match &issued.written {
        Some(credential) => Some(credential.clone()),
        None => read(controller, &attempt.identity.namespace, attempt.secret, attempt.fingerprint).await?,
    };
    match credential {
        Some(credential) => Ok(controller.logins.log_in(attempt, credential).await),
        None => {
            let message = format!("the Secret {} is missing", attempt.secret);
            Ok(Err(BrokerFailure { reason: Reason::IssueFailed, message }))
        }
    }
}

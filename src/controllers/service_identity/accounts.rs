//! The broker accounts of an identity.

use std::sync::Arc;
use std::time::Duration;

use super::super::context::Context;
use super::super::retry_in;
use super::credentials::{Settled, certificate_status};
use super::login;
use super::observe::Observed;
use super::plan::Slot;
use crate::api::{BrokerAccountStatus, ConditionType, Conditions, Reason, ServiceIdentityStatus};
use crate::domain::identity::Subject;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Next;

/// How soon an account that a broker does not let in is tried again, at first and at most.
const RECHECK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// The broker accounts of an identity.
pub struct Accounts<'a> {
    pub slots: &'a [Slot],
    pub settled: &'a [Settled],
    /// Brokers that the Secret cannot be made for yet, and why.
    pub waiting: &'a [(String, Reason, String)],
    pub subject: &'a Subject,
}

impl Accounts<'_> {
    /// Verifies what is new by logging in, and describes all accounts.
    pub async fn describe(
        &self,
        context: &Arc<Context>,
        observed: &Observed,
        status: &mut ServiceIdentityStatus,
        conditions: &mut Conditions,
    ) -> Result<Next, Error> {
        let mut problem = self.waiting.first().map(|(_, reason, message)| (*reason, message.clone()));
        let mut accounts = Vec::new();
        for (slot, settled) in self.slots.iter().zip(self.settled) {
            let Some(index) = slot.broker else { continue };
            let broker = &observed.brokers[index];
            let known = observed.status.brokers.iter().find(|account| account.name == broker.name);
            let before = known.and_then(|account| account.certificate.as_ref());
            let certificate = certificate_status(observed, slot, settled, before);
            let mut verified = known.and_then(|account| account.verified_fingerprint.clone());
            if let (Some(certificate), Some(broker)) = (&certificate, &broker.broker)
                && settled.problem.is_none()
                && verified.as_ref() != Some(&certificate.fingerprint)
            {
                let attempt = login::Attempt {
                    broker: broker.clone(),
                    identity: &observed.identity,
                    secret: &slot.secret_name,
                    fingerprint: &certificate.fingerprint,
                    credential: settled.written.clone(),
                };
                match login::verify(context, attempt).await? {
                    Ok(()) => verified = Some(certificate.fingerprint.clone()),
                    Err(failure) => _ = problem.get_or_insert((failure.reason, failure.message)),
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
        let Some((reason, message)) = problem else {
            if !status.brokers.is_empty() {
                let names: Vec<&str> = status.brokers.iter().map(|account| account.name.as_str()).collect();
                let message = format!("{} let it in as {}", names.join(", "), self.subject.kafka_principal());
                conditions.met(ConditionType::BrokerAccess, Reason::LoginVerified, message);
            }
            return Ok(None);
        };
        conditions.unmet(ConditionType::BrokerAccess, reason, message);
        Ok(Some(retry_in(&observed.status.conditions, ConditionType::BrokerAccess, observed.now, RECHECK)))
    }
}

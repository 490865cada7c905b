//! Whether a broker accepts a credential: found out by logging in with it, beside the reconcile, so that a broker that
//! hangs holds nothing else up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::Context;
use super::credentials::{self, Credential};
use crate::api::{Reason, ServiceIdentity};
use crate::brokers::BrokerFailure;
use crate::brokers::kafka;
use crate::brokers::registry::Broker;
use crate::domain::name::Name;
use crate::kubernetes::error::Error;

/// How long a reconcile waits for the answer, which mostly comes within milliseconds. One that comes later wakes the
/// identity again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Namespace and name of a Secret, and the fingerprint of the certificate in it.
type Key = (String, String, String);
type Answer = Result<(), BrokerFailure>;

/// Logins that took longer than a reconcile waits: under way, or answered and not yet asked for.
#[derive(Default)]
pub struct Logins(Mutex<HashMap<Key, Option<Answer>>>);

impl Logins {
    fn slow(&self) -> MutexGuard<'_, HashMap<Key, Option<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A login to be made.
pub struct Attempt<'a> {
    pub broker: Arc<Broker>,
    pub identity: &'a ServiceIdentity,
    pub secret: &'a str,
    pub fingerprint: &'a str,
    /// The credential, when it is at hand; otherwise the Secret is read.
    pub credential: Option<Credential>,
}

/// Logs in with a credential. That the broker refuses, or takes long to answer, is an answer.
///
/// # Errors
/// When the Secret cannot be read.
pub async fn verify(context: &Arc<Context>, attempt: Attempt<'_>) -> Result<Answer, Error> {
    let connection = attempt.broker.session.state().borrow().connection.clone();
    match connection {
        Some(Ok(_)) => {}
        Some(Err(failure)) => return Ok(Err(failure)),
        None => return Ok(Err(not_ready("the broker has not answered yet"))),
    }
    let namespace = attempt.identity.metadata.namespace.clone().unwrap_or_default();
    let key = (namespace.clone(), attempt.secret.to_owned(), attempt.fingerprint.to_owned());
    {
        let mut slow = context.logins.slow();
        match slow.remove(&key) {
            Some(Some(answer)) => return Ok(answer),
            Some(None) => {
                slow.insert(key, None);
                return Ok(Err(not_ready("the broker has not answered the login with the new credential yet")));
            }
            None => {}
        }
    }
    let credential = match attempt.credential {
        Some(credential) => credential,
        None => match credentials::read(context, &namespace, attempt.secret).await? {
            Some(credential) => credential,
            None => {
                let message = format!("the Secret {} is gone", attempt.secret);
                return Ok(Err(BrokerFailure { reason: Reason::IssueFailed, message }));
            }
        },
    };
    let (sender, mut answer) = oneshot::channel();
    let (in_background, name) = (Arc::downgrade(context), attempt.identity.metadata.name.clone().unwrap_or_default());
    let (broker, for_task) = (attempt.broker, key.clone());
    tokio::spawn(async move {
        // Handshakes are dear for a broker; they take their turn.
        let turn = broker.logins.acquire().await;
        let answer = kafka::login(&broker.access, &credential.chain_pem, &credential.key).await;
        drop(turn);
        if let Err(late) = sender.send(answer)
            && let Some(context) = in_background.upgrade()
        {
            context.logins.slow().insert(for_task, Some(late));
            context.triggers.identities.fire(&Name::new(Some(&namespace), &name));
        }
    });
    if let Ok(Ok(answer)) = timeout(PATIENCE, &mut answer).await {
        return Ok(answer);
    }
    // From here on the answer goes to the slow ones, unless it came this very moment.
    context.logins.slow().entry(key.clone()).or_insert(None);
    answer.close();
    if let Ok(answer) = answer.try_recv() {
        context.logins.slow().remove(&key);
        return Ok(answer);
    }
    Ok(Err(not_ready("the broker has not answered the login with the new credential yet")))
}

fn not_ready(message: &str) -> BrokerFailure {
    BrokerFailure { reason: Reason::BrokerNotReady, message: message.to_owned() }
}

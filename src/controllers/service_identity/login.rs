//! Finds out whether a broker accepts a credential by logging in with it, in the background, so that a broker that hangs
//! delays nothing else.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::credential::Credential;
use crate::api::Reason;
use crate::brokers::registry::Broker;
use crate::brokers::state::ConnectionState;
use crate::brokers::{BrokerFailure, kafka};
use crate::controllers::shared::signal::{Signal, Signals};
use crate::domain::name::Name;

/// How long a reconcile waits for the answer, which usually arrives within milliseconds. A later answer wakes the identity
/// again.
const WAIT: Duration = Duration::from_secs(1);

/// A credential: its Secret, and the fingerprint of the certificate in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    secret: Name,
    fingerprint: String,
}

/// The answer to a login.
type Answer = Result<(), BrokerFailure>;

/// A login that took longer than a reconcile waits.
enum SlowLogin {
    Pending,
    Answered(Answer),
}

/// The logins that took longer than a reconcile waits, until their answers were taken.
pub struct Logins {
    slow: Arc<Mutex<HashMap<Key, SlowLogin>>>,
    signals: Signals,
}

/// A login that is to be made.
pub struct Attempt<'a> {
    pub broker: &'a Arc<Broker>,
    pub identity: Name,
    pub secret: &'a str,
    pub fingerprint: &'a str,
}

impl Attempt<'_> {
    fn key(&self) -> Key {
        let secret = Name::new(Some(&self.identity.namespace), self.secret);
        Key { secret, fingerprint: self.fingerprint.to_owned() }
    }
}

impl Logins {
    /// No logins yet.
    #[must_use]
    pub fn new(signals: Signals) -> Self {
        Self { slow: Arc::default(), signals }
    }

    /// The answer, as far as it is known without a new login: that of one that was slow, or that the broker is down.
    pub fn known(&self, attempt: &Attempt<'_>) -> Option<Answer> {
        let connection = attempt.broker.session.state().borrow().connection.clone();
        match connection {
            ConnectionState::Connected(_) => {}
            ConnectionState::Failed(failure) => return Some(Err(failure)),
            ConnectionState::Connecting => return Some(Err(not_ready("the broker has not answered yet"))),
        }
        let (key, mut slow) = (attempt.key(), self.slow.lock());
        match slow.remove(&key)? {
            SlowLogin::Answered(answer) => Some(answer),
            SlowLogin::Pending => {
                slow.insert(key, SlowLogin::Pending);
                Some(Err(no_answer()))
            }
        }
    }

    /// Logs in with a credential. A refusal, or a broker that takes long, is an answer too.
    pub async fn log_in(&self, attempt: &Attempt<'_>, credential: Credential) -> Answer {
        let (sender, mut answer) = oneshot::channel();
        let (key, broker, identity) = (attempt.key(), attempt.broker.clone(), attempt.identity.clone());
        let (slow, signals, for_task) = (self.slow.clone(), self.signals.clone(), key.clone());
        tokio::spawn(async move {
            // Handshakes cost a broker much, so only some take place at once.
            let permit = broker.logins.acquire().await;
            let login = kafka::login(&broker.access, &credential.chain_pem, &credential.key, &broker.addresses);
            // Nobody would wait for a login that panicked again.
            let answer = AssertUnwindSafe(login).catch_unwind().await;
            let answer =
                answer.unwrap_or_else(|_| Err(not_ready("the login failed because of a defect of the operator")));
            drop(permit);
            if let Err(late) = sender.send(answer) {
                slow.lock().insert(for_task, SlowLogin::Answered(late));
                signals.emit(Signal::LoginAnswered(identity));
            }
        });
        if let Ok(Ok(answer)) = timeout(WAIT, &mut answer).await {
            return answer;
        }
        // From here on the answer goes to the slow logins, unless it arrives at this very moment.
        self.slow.lock().entry(key.clone()).or_insert(SlowLogin::Pending);
        answer.close();
        if let Ok(answer) = answer.try_recv() {
            self.slow.lock().remove(&key);
            return answer;
        }
        Err(no_answer())
    }
}

fn no_answer() -> BrokerFailure {
    not_ready("the broker has not answered the login with the new credential yet")
}

fn not_ready(message: &str) -> BrokerFailure {
    BrokerFailure { reason: Reason::BrokerNotReady, message: message.to_owned() }
}

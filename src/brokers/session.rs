//! The session with one broker, for those who use it: the handle that policies send demands to. Its work is done in
//! [`super::worker`].

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{RwLock, mpsc, oneshot, watch};

pub use super::decide::{Demand, DemandMode, Outcome};
use super::records::{RecordStore, Records};
use super::state::{Context, SessionMode, State};
use super::worker::{Message, Worker};
use super::{Admin, BrokerFailure};
use crate::api::Reason;
use crate::domain::grants::Bindings;
use crate::stalls::measured;

/// How many demands may wait. When the queue is full, senders wait; no demand is dropped.
const MAX_QUEUE: usize = 4096;

/// A handle on a session. The session ends when the last handle is dropped.
#[derive(Clone)]
pub struct Session {
    demands: mpsc::Sender<Message>,
    state: watch::Receiver<State>,
    records: Arc<RwLock<Records>>,
}

impl Session {
    /// Starts a session. `broker` is the name of its `BrokerConnection`, for the log. `records` are those in the store.
    pub fn start<A: Admin, S: RecordStore>(
        broker: &str,
        config: A::Config,
        mode: SessionMode,
        (records, store): (Records, S),
        context: Context,
    ) -> Self {
        let (demands, inbox) = mpsc::channel(MAX_QUEUE);
        let (publish, state) = watch::channel(State::default());
        let records = Arc::new(RwLock::new(records));
        let held = context.held.clone();
        let worker = Worker::<A, S>::new(broker, config, mode, (records.clone(), store), context, (inbox, publish));
        tokio::spawn(measured(worker.run(), move |step| held(step)));
        Self { demands, state, records }
    }

    /// See [`Records::recorded`].
    pub async fn recorded(&self, policy: &str, created: Timestamp, status: &Bindings) -> Bindings {
        self.records.read().await.recorded(policy, created, status)
    }

    /// See [`Records::policies`].
    pub async fn policies(&self) -> Vec<String> {
        self.records.read().await.policies()
    }

    /// See [`Records::was_granted_before`].
    pub async fn was_granted_before(
        &self,
        policy: &str,
        created: Timestamp,
        rights: &Bindings,
        status: &Bindings,
    ) -> bool {
        self.records.read().await.was_granted_before(policy, created, rights, status)
    }

    /// Carries out a demand, and returns its outcome.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses the operator as a whole.
    pub async fn ensure(&self, demand: Demand) -> Result<Outcome, BrokerFailure> {
        let (reply, answer) = oneshot::channel();
        self.demands.send(Message::Ensure(demand, reply)).await.map_err(|_| replaced())?;
        answer.await.map_err(|_| replaced())?
    }

    /// Drops the record of a deleted policy. What is left of its bindings stays on the broker.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn forget(&self, policy: &str) -> Result<(), BrokerFailure> {
        let (reply, answer) = oneshot::channel();
        self.demands.send(Message::Forget(policy.to_owned(), reply)).await.map_err(|_| replaced())?;
        answer.await.map_err(|_| replaced())?
    }

    /// The state of the session, and a way to wait for changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

fn replaced() -> BrokerFailure {
    BrokerFailure {
        reason: Reason::BrokerNotReady,
        message: "the session with the broker is being replaced; retrying".into(),
    }
}

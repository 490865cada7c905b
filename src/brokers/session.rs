//! The session with one broker, for those who use it: the handle that policies send demands to. Its work is done in
//! [`super::worker`].

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

pub use super::decide::{Demand, DemandMode, Outcome};
use super::records::{Record, RecordStore, Records};
use super::state::{Exists, SessionMode, State};
use super::worker::{Message, Worker};
use super::{Admin, BrokerFailure};
use crate::api::{AppliedBinding, Reason};
use crate::domain::fence::Fence;
use crate::domain::grants::Bindings;

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
    /// Starts a session. `broker` is the name of its `BrokerConnection`, for the log. `records` are those in the store. Nothing
    /// is changed once `fence` has fallen.
    pub fn start<A: Admin, S: RecordStore>(
        broker: &str,
        config: A::Config,
        mode: SessionMode,
        (records, store): (Records, S),
        exists: Exists,
        fence: Fence,
    ) -> Self {
        let (demands, inbox) = mpsc::channel(MAX_QUEUE);
        let (publish, state) = watch::channel(State::default());
        let records = Arc::new(RwLock::new(records));
        let worker =
            Worker::<A, S>::new(broker, config, mode, (records.clone(), store), exists, fence, (inbox, publish));
        tokio::spawn(worker.run());
        Self { demands, state, records }
    }

    /// What is recorded for a policy: what the operator made for it, and what it found. As long as nothing was taken over of
    /// what a policy applied before there were records, it is what its `status` says.
    #[must_use]
    pub fn recorded(&self, policy: &str, created: Timestamp, status: &Bindings) -> Bindings {
        let records = self.records.read();
        if records.may_import(policy, created) {
            return status.clone();
        }
        let bindings = records.get(policy).into_iter().flat_map(Record::bindings);
        bindings.map(|binding| AppliedBinding::clone(binding)).collect()
    }

    /// The policies with a record of rights, as `namespace/name`.
    #[must_use]
    pub fn policies(&self) -> Vec<String> {
        let records = self.records.read();
        let with_rights = records.iter().filter(|(_, record)| record.bindings().next().is_some());
        let mut policies: Vec<String> = with_rights.map(|(_, record)| record.policy.clone()).collect();
        policies.sort_unstable();
        policies
    }

    /// Whether rights that a policy had before there were records are still in force: its record holds them, or its status
    /// does and nothing has been recorded yet.
    #[must_use]
    pub fn was_granted_before(&self, policy: &str, created: Timestamp, rights: &Bindings, status: &Bindings) -> bool {
        let records = self.records.read();
        if !records.is_older(created) {
            return false;
        }
        if records.may_import(policy, created) {
            return rights.is_subset(status);
        }
        let record = records.get(policy);
        record.is_some_and(|record| rights.iter().all(|right| record.bindings().any(|recorded| **recorded == *right)))
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

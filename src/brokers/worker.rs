//! The work of a session: the only writer of a broker's ACLs.
//!
//! The demands that wait at the same time are carried out as one batch: recorded first, then creations, then deletions. The ledger
//! knows the claims of every policy. It decides whether a binding is still needed when a policy stops claiming it, and which bindings
//! are created again when the broker has lost them. What was recorded for a policy that does not exist any more is revoked after
//! a while.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::absent::{Absence, HeldBack};
use super::decide::{Demand, Limits, Outcome, decide};
use super::ledger::{BrokerState, DriftTracker, Ledger};
use super::records::{RecordStore, Records};
use super::state::{ConnectionState, Exists, SessionMode, State};
use super::{Admin, BrokerFailure, ClusterFacts, Failures};
use crate::api::{AppliedBinding, Reason};
use crate::domain::fence::Fence;
use crate::domain::grants::Bindings;

/// How many demands a batch has at most.
const MAX_BATCH: usize = 1024;
/// How long changes wait to be reported together: a report goes through all ACLs of the broker.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// How long a connection has to last until the pauses between attempts to connect begin again with the shortest: a broker that answers
/// and then hangs up must not be asked without end.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// What a session is asked for, and where the answer goes.
pub(super) enum Message {
    /// Carries out a demand.
    Ensure(Demand, oneshot::Sender<Result<Outcome, BrokerFailure>>),
    /// Drops the record of a deleted policy, by its UID.
    Forget(String, oneshot::Sender<Result<(), BrokerFailure>>),
}

/// A session at work.
pub(super) struct Worker<A: Admin, S: RecordStore> {
    broker: String,
    config: A::Config,
    mode: SessionMode,
    fence: Fence,
    ledger: Ledger,
    records: Arc<RwLock<Records>>,
    store: S,
    /// Whether the records have to be read again: a write failed, and it is not known which of them are stored.
    is_stale: bool,
    exists: Exists,
    absence: Absence,
    held_back: Option<HeldBack>,
    state: BrokerState,
    facts: ClusterFacts,
    drift: DriftTracker,
    inbox: mpsc::Receiver<Message>,
    publish: watch::Sender<State>,
}

impl<A: Admin, S: RecordStore> Worker<A, S> {
    pub fn new(
        broker: &str,
        config: A::Config,
        mode: SessionMode,
        (records, store): (Arc<RwLock<Records>>, S),
        exists: Exists,
        fence: Fence,
        (inbox, publish): (mpsc::Receiver<Message>, watch::Sender<State>),
    ) -> Self {
        let ledger = Ledger::new(&records.read());
        Self {
            broker: broker.to_owned(),
            config,
            mode,
            fence,
            ledger,
            records,
            store,
            is_stale: false,
            exists,
            absence: Absence::default(),
            held_back: None,
            state: BrokerState::default(),
            facts: ClusterFacts::default(),
            drift: DriftTracker::default(),
            inbox,
            publish,
        }
    }

    /// Works until the last handle is dropped.
    pub async fn run(mut self) {
        let mut attempts = 0_u32;
        loop {
            let mut serving_since = None;
            // A defect is the failure of this session: it is reported, and the session starts from its records again.
            let failure = match AssertUnwindSafe(self.work(&mut serving_since)).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(_) => {
                    self.is_stale = true;
                    self.ledger = Ledger::new(&self.records.read());
                    panicked()
                }
            };
            if serving_since.is_some_and(|since: Instant| since.elapsed() >= RESET_AFTER) {
                attempts = 0;
            }
            tracing::warn!(
                broker = self.broker,
                reason = failure.reason.as_str(),
                error = failure.message,
                "broker session interrupted; retrying"
            );
            self.report(Err(failure));
            let pause = Duration::from_millis((250 * 2_u64.saturating_pow(attempts.min(8))).min(30_000));
            attempts = attempts.saturating_add(1);
            if self.refuse_during(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Connects, and carries out demands until the last handle is dropped (`Ok`) or the connection fails.
    async fn work(&mut self, serving_since: &mut Option<Instant>) -> Result<(), BrokerFailure> {
        let Some(connected) = self.connect().await else { return Ok(()) };
        let admin = connected?;
        *serving_since = Some(Instant::now());
        self.serve(admin).await
    }

    /// Connects. At the first attempt, demands wait for its end. Later ones are answered with the last failure, since a
    /// broker that hangs must not delay them. `None` when the last handle was dropped.
    async fn connect(&mut self) -> Option<Result<A, BrokerFailure>> {
        let config = self.config.clone();
        let connecting = A::connect(&config);
        if !self.publish.borrow().has_result() {
            return Some(connecting.await);
        }
        self.refuse_during(connecting).await
    }

    /// Carries out demands over one connection until the last handle is dropped (`Ok`) or the connection fails.
    async fn serve(&mut self, mut admin: A) -> Result<(), BrokerFailure> {
        if self.is_stale {
            self.reload().await?;
        }
        self.resync(&mut admin).await?;
        let resync = self.mode.resync;
        let mut tick = interval_at(Instant::now() + resync, resync);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report_at = None;
        loop {
            let report = async {
                match report_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                first = self.inbox.recv() => {
                    let Some(first) = first else { return self.save().await };
                    let mut batch = vec![first];
                    while batch.len() < MAX_BATCH && let Ok(next) = self.inbox.try_recv() {
                        batch.push(next);
                    }
                    if self.carry_out(&mut admin, batch).await? {
                        report_at.get_or_insert(Instant::now() + DEBOUNCE);
                    }
                }
                () = report => {
                    report_at = None;
                    self.save().await?;
                    self.report(Ok(()));
                }
                _ = tick.tick() => self.resync(&mut admin).await?,
            }
        }
    }

    /// Carries out a batch, and returns whether claims, records or ACLs changed.
    async fn carry_out(&mut self, admin: &mut A, messages: Vec<Message>) -> Result<bool, BrokerFailure> {
        let (mut demands, mut replies) = (Vec::new(), Vec::new());
        let mut changed = false;
        for message in messages {
            match message {
                Message::Forget(policy, reply) => {
                    changed |= self.ledger.remove(&policy);
                    self.records.write().forget(&policy);
                    let saved = self.save().await;
                    // The receiver is gone when the operator is stopping.
                    let _ = reply.send(saved.clone());
                    saved?;
                }
                Message::Ensure(demand, reply) => {
                    demands.push(demand);
                    replies.push(reply);
                }
            }
        }
        let limits = Limits { enforce: self.mode.enforce, per_namespace: self.mode.per_namespace };
        let batch = {
            let mut records = self.records.write();
            decide(&demands, &mut self.ledger, &mut records, &self.state, limits)
        };
        changed |= batch.changed;
        let result = self.change(admin, &batch.add, &batch.remove).await;
        let answers: Vec<Result<Outcome, BrokerFailure>> = match &result {
            Err(failure) => demands.iter().map(|_| Err(failure.clone())).collect(),
            Ok(failures) => {
                let outcomes = batch.settle(&demands, failures, &mut self.records.write());
                outcomes.into_iter().map(Ok).collect()
            }
        };
        for ((demand, reply), answer) in demands.iter().zip(replies).zip(answers) {
            tracing::debug!(broker = self.broker, policy = demand.policy, ok = answer.is_ok(), "demand carried out");
            // The receiver is gone when the operator is stopping.
            let _ = reply.send(answer);
        }
        if !result?.is_empty() {
            // The rights of the operator itself may have changed.
            self.facts = admin.facts().await?;
            self.report(Ok(()));
        }
        Ok(changed)
    }

    /// Stores the records that changed. What a record loses waits until something is recorded, or for the next report: until
    /// then it only names what does not exist any more.
    async fn save(&mut self) -> Result<(), BrokerFailure> {
        let changed: Vec<_> = self.records.read().changed().map(|(number, shard)| (number, shard.clone())).collect();
        for (number, shard) in changed {
            let saved = self.fence.guard(self.store.save(number, &shard)).await.ok_or_else(not_leading)?;
            self.is_stale |= saved.is_err();
            saved?;
        }
        self.records.write().saved();
        Ok(())
    }

    /// Reads the records again. What policies ask for stays as it is.
    async fn reload(&mut self) -> Result<(), BrokerFailure> {
        *self.records.write() = Records::new(self.store.load().await?);
        self.is_stale = false;
        Ok(())
    }

    /// Stores the records, creates bindings, and deletes others.
    async fn change(&mut self, admin: &mut A, add: &Bindings, remove: &Bindings) -> Result<Failures, BrokerFailure> {
        let mut failures = Failures::new();
        if !add.is_empty() {
            self.save().await?;
            failures.extend(self.fence.guard(admin.add(add)).await.ok_or_else(not_leading)??);
            for binding in add.iter().filter(|binding| !failures.contains_key(*binding)) {
                self.state.insert(self.ledger.share(binding));
            }
        }
        if !remove.is_empty() {
            let refused = self.fence.guard(admin.remove(remove)).await.ok_or_else(not_leading)??;
            for binding in remove.iter().filter(|binding| !refused.contains_key(*binding)) {
                self.state.remove(binding);
            }
            failures.extend(refused);
        }
        Ok(failures)
    }

    /// Compares all ACLs of the broker with the ledger, and creates those again that policies ask for.
    async fn resync(&mut self, admin: &mut A) -> Result<(), BrokerFailure> {
        self.facts = admin.facts().await?;
        let cluster = self.facts.cluster_id.clone().unwrap_or_default();
        if self.records.write().set_cluster(&cluster) {
            // Its policies are asked again.
            self.ledger = Ledger::new(&self.records.read());
        }
        let listed = BrokerState::new(admin.list().await?, &self.ledger);
        let missing = listed.missing(&self.ledger);
        let before = std::mem::replace(&mut self.state, listed);
        self.drift.add_missing(&missing, &before);
        if self.mode.enforce {
            let asked: Bindings = missing.into_iter().filter(|binding| self.ledger.is_asked_for(binding)).collect();
            let noted = self.records.write().note_created(self.ledger.askers(&asked));
            self.change(admin, &noted, &Bindings::new()).await?;
            self.records.write().retain_created(|binding| self.state.contains(binding));
            self.revoke_absent(admin).await?;
        }
        self.drift.remove_resolved(&self.ledger, &self.state);
        self.save().await?;
        self.report(Ok(()));
        Ok(())
    }

    /// Revokes what was recorded for policies that do not exist any more.
    async fn revoke_absent(&mut self, admin: &mut A) -> Result<(), BrokerFailure> {
        let (exists, now) = (&self.exists, Instant::now().into_std());
        let decision = self.absence.decide(
            &self.records.read(),
            |policy, name| exists(policy, name),
            (self.mode.absent_for, self.mode.absent),
            now,
        );
        self.held_back = decision.held_back;
        if decision.revoke.is_empty() {
            return Ok(());
        }
        for (policy, _) in &decision.revoke {
            self.ledger.remove(policy);
        }
        let rights = decision.revoke.iter().flat_map(|(_, rights)| rights);
        let unneeded = rights.filter(|binding| self.state.contains(binding) && !self.ledger.needs(binding));
        let remove: Bindings = unneeded.map(|binding| AppliedBinding::clone(binding)).collect();
        let failures = self.change(admin, &Bindings::new(), &remove).await?;
        if !remove.is_empty() {
            tracing::warn!(
                broker = self.broker,
                policies = decision.revoke.len(),
                acls = remove.len(),
                failed = failures.len(),
                "revoked the rights of policies that do not exist any more"
            );
        }
        let mut records = self.records.write();
        for (policy, rights) in decision.revoke {
            // What could not be removed stays recorded, and is tried again.
            if !rights.iter().any(|binding| failures.contains_key(&**binding)) {
                records.forget(&policy);
            }
        }
        Ok(())
    }

    /// Answers demands with the last failure until a future has ended. `None` when the last handle was dropped.
    async fn refuse_during<T>(&mut self, until: impl Future<Output = T>) -> Option<T> {
        let failure = match &self.publish.borrow().connection {
            ConnectionState::Failed(failure) => failure.clone(),
            _ => BrokerFailure {
                reason: Reason::BrokerNotReady,
                message: "the session with the broker is not connected yet; retrying".into(),
            },
        };
        tokio::pin!(until);
        loop {
            tokio::select! {
                ended = &mut until => return Some(ended),
                message = self.inbox.recv() => match message {
                    None => return None,
                    Some(Message::Forget(policy, reply)) => {
                        self.ledger.remove(&policy);
                        self.records.write().forget(&policy);
                        let _ = reply.send(self.save().await);
                    }
                    // What is recorded for the policy stays claimed.
                    Some(Message::Ensure(_, reply)) => _ = reply.send(Err(failure.clone())),
                },
            }
        }
    }

    fn report(&self, connection: Result<(), BrokerFailure>) {
        let fresh = State {
            connection: match connection {
                Ok(()) => ConnectionState::Connected(self.facts.clone()),
                Err(failure) => ConnectionState::Failed(failure),
            },
            applied: self.state.applied(&self.ledger),
            unmanaged: self.state.unmanaged(&self.ledger),
            missing: self.drift.lost(),
            drift_found: self.drift.found,
            drift_repaired: self.drift.repaired,
            groups_released: self.ledger.groups_released(),
            held_back: self.held_back.clone(),
        };
        self.publish.send_if_modified(|state| {
            let changed = *state != fresh;
            *state = fresh;
            changed
        });
    }
}

fn panicked() -> BrokerFailure {
    BrokerFailure {
        reason: Reason::BrokerNotReady,
        message:
            "the session with the broker failed because of a defect of the operator; retrying. Report it with the \
                  operator's log"
                .into(),
    }
}

fn not_leading() -> BrokerFailure {
    BrokerFailure {
        reason: Reason::BrokerNotReady,
        message: "this process lost the lease; writes are fenced off".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::Holdings;
    use super::super::absent::AbsentPolicies;
    use super::super::records::{Shard, Stored};
    use super::super::session::Session;
    use super::*;

    /// A broker whose session panics when it connects, as often as its configuration says.
    struct Defective;

    impl Admin for Defective {
        type Config = Arc<AtomicU32>;

        async fn connect(config: &Arc<AtomicU32>) -> Result<Self, BrokerFailure> {
            let left = config.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            assert!(left.is_err(), "a defect");
            Ok(Self)
        }

        async fn facts(&mut self) -> Result<ClusterFacts, BrokerFailure> {
            Ok(ClusterFacts::default())
        }

        async fn list(&mut self) -> Result<Holdings, BrokerFailure> {
            Ok(Holdings::default())
        }

        async fn add(&mut self, _: &Bindings) -> Result<Failures, BrokerFailure> {
            Ok(Failures::new())
        }

        async fn remove(&mut self, _: &Bindings) -> Result<Failures, BrokerFailure> {
            Ok(Failures::new())
        }
    }

    struct Nothing;

    impl RecordStore for Nothing {
        async fn load(&self) -> Result<Stored, BrokerFailure> {
            Ok(Stored::default())
        }

        async fn save(&self, _: u32, _: &Shard) -> Result<(), BrokerFailure> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_the_session_and_not_its_end() {
        let mode = SessionMode {
            enforce: true,
            absent: AbsentPolicies::default(),
            resync: Duration::from_secs(60),
            absent_for: Duration::from_secs(60),
            per_namespace: 100,
        };
        let (left, records) = (Arc::new(AtomicU32::new(2)), (Records::new(Stored::default()), Nothing));
        let exists: Exists = Arc::new(|_, _| true);
        let session = Session::start::<Defective, _>("kafka", left, mode, records, exists, Fence::default());
        let mut state = session.state();
        let failed = state.wait_for(|state| matches!(state.connection, ConnectionState::Failed(_))).await.unwrap();
        assert_eq!(failed.connection, ConnectionState::Failed(panicked()));
        drop(failed);
        state.wait_for(State::is_up).await.unwrap();
    }
}

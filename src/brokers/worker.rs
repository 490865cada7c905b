//! The work of a session: the only writer of a broker's ACLs.
//!
//! The demands that wait at the same time are carried out as one batch: recorded first, then creations, then deletions. What
//! becomes of them, and what has to be made again, the [`Inventory`] decides. A broker may have very many ACLs, so this is worked out
//! on a thread beside the operator's.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{RwLock, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::decide::{Demand, Limits, Outcome};
use super::inventory::Inventory;
use super::records::{RecordStore, Records};
use super::state::{ConnectionState, Context, SessionMode, State};
use super::{Admin, BrokerFailure, ClusterFacts, Failures};
use crate::api::Reason;
use crate::domain::grants::{Bindings, Difference};
use crate::stalls::elsewhere;

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
    context: Context,
    /// `None` until it is needed, and after a defect: then it is made from the records.
    inventory: Option<Inventory>,
    records: Arc<RwLock<Records>>,
    store: S,
    /// Whether the records have to be read again: a write failed, and it is not known which of them are stored.
    is_stale: bool,
    facts: ClusterFacts,
    inbox: mpsc::Receiver<Message>,
    publish: watch::Sender<State>,
}

impl<A: Admin, S: RecordStore> Worker<A, S> {
    pub fn new(
        broker: &str,
        config: A::Config,
        mode: SessionMode,
        (records, store): (Arc<RwLock<Records>>, S),
        context: Context,
        (inbox, publish): (mpsc::Receiver<Message>, watch::Sender<State>),
    ) -> Self {
        Self {
            broker: broker.to_owned(),
            config,
            mode,
            context,
            inventory: None,
            records,
            store,
            is_stale: false,
            facts: ClusterFacts::default(),
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
                    (self.is_stale, self.inventory) = (true, None);
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
            self.show_failure(failure);
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
                    self.report().await;
                }
                _ = tick.tick() => self.resync(&mut admin).await?,
            }
        }
    }

    /// Works something out from the inventory and the records, beside the operator's threads. Both are lent for that.
    async fn work_out<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Inventory, &mut Records) -> T + Send + 'static,
    ) -> T {
        let (inventory, mut records) = (self.inventory.take(), self.records.clone().write_owned().await);
        let (inventory, result) = elsewhere(move || {
            let mut inventory = inventory.unwrap_or_else(|| Inventory::new(&records));
            let result = work(&mut inventory, &mut records);
            (inventory, result)
        })
        .await;
        self.inventory = Some(inventory);
        result
    }

    /// Carries out a batch, and returns whether claims, records or ACLs changed.
    async fn carry_out(&mut self, admin: &mut A, messages: Vec<Message>) -> Result<bool, BrokerFailure> {
        let (mut demands, mut replies) = (Vec::new(), Vec::new());
        let mut changed = false;
        for message in messages {
            match message {
                Message::Forget(policy, reply) => {
                    let (had_claims, saved) = self.forget(policy).await;
                    changed |= had_claims;
                    // The receiver is gone when the operator is stopping.
                    let _ = reply.send(saved.clone());
                    saved?;
                }
                Message::Ensure(demand, reply) => {
                    replies.push((demand.policy.clone(), reply));
                    demands.push(demand);
                }
            }
        }
        let limits = Limits { enforce: self.mode.enforce, per_namespace: self.mode.per_namespace };
        let decide = move |inventory: &mut Inventory, records: &mut Records| {
            let batch = inventory.decide(&demands, records, limits);
            (demands, batch)
        };
        let (demands, mut batch) = self.work_out(decide).await;
        changed |= batch.changed;
        let change = Difference { add: std::mem::take(&mut batch.add), remove: std::mem::take(&mut batch.remove) };
        let failures = match self.change(admin, change).await {
            Ok(failures) => failures,
            Err(failure) => {
                for (_, reply) in replies {
                    let _ = reply.send(Err(failure.clone()));
                }
                return Err(failure);
            }
        };
        let any_refused = !failures.is_empty();
        let outcomes = self.work_out(move |_, records| batch.settle(&demands, &failures, records)).await;
        for ((policy, reply), outcome) in replies.into_iter().zip(outcomes) {
            tracing::debug!(broker = self.broker, policy, "demand carried out");
            // The receiver is gone when the operator is stopping.
            let _ = reply.send(Ok(outcome));
        }
        if any_refused {
            // The rights of the operator itself may have changed.
            self.facts = admin.facts().await?;
            self.report().await;
        }
        Ok(changed)
    }

    /// Drops the record of a deleted policy. Returns whether it claimed anything, and whether that could be stored.
    async fn forget(&mut self, policy: String) -> (bool, Result<(), BrokerFailure>) {
        let had_claims = self.work_out(move |inventory, records| inventory.forget(&policy, records)).await;
        (had_claims, self.save().await)
    }

    /// Stores the records that changed. What a record loses waits until something is recorded, or for the next report: until
    /// then it only names what does not exist any more.
    async fn save(&mut self) -> Result<(), BrokerFailure> {
        loop {
            let unsaved = self.records.read().await.unsaved();
            let Some((number, shard)) = unsaved else { return Ok(()) };
            let saved = self.context.fence.guard(self.store.save(number, &shard)).await.ok_or_else(not_leading)?;
            self.is_stale |= saved.is_err();
            saved?;
            self.records.write().await.saved(number);
        }
    }

    /// Reads the records again. What policies ask for stays as it is.
    async fn reload(&mut self) -> Result<(), BrokerFailure> {
        let stored = self.store.load().await?;
        self.work_out(|_, records| *records = Records::new(stored)).await;
        self.is_stale = false;
        Ok(())
    }

    /// Stores the records, creates bindings, and deletes others.
    async fn change(&mut self, admin: &mut A, change: Difference) -> Result<Failures, BrokerFailure> {
        let (Difference { add, remove }, fence) = (change, self.context.fence.clone());
        let mut failures = Failures::new();
        if !add.is_empty() {
            self.save().await?;
            let refused = fence.guard(admin.add(&add)).await.ok_or_else(not_leading)??;
            failures.extend(refused.clone());
            self.work_out(move |inventory, _| inventory.note_added(&add, &refused)).await;
        }
        if !remove.is_empty() {
            let refused = fence.guard(admin.remove(&remove)).await.ok_or_else(not_leading)??;
            failures.extend(refused.clone());
            self.work_out(move |inventory, _| inventory.note_removed(&remove, &refused)).await;
        }
        Ok(failures)
    }

    /// Compares all ACLs of the broker with the claims, and creates those again that policies ask for.
    async fn resync(&mut self, admin: &mut A) -> Result<(), BrokerFailure> {
        self.facts = admin.facts().await?;
        let cluster = self.facts.cluster_id.clone().unwrap_or_default();
        let listed = admin.list().await?;
        self.work_out(move |inventory, records| inventory.compare(&cluster, listed, records)).await;
        if self.mode.enforce {
            let add = self.work_out(|inventory, records| inventory.make_again(records)).await;
            self.change(admin, Difference { add, remove: Bindings::new() }).await?;
            self.revoke_absent(admin).await?;
        }
        self.work_out(|inventory, _| inventory.resolve_drift()).await;
        self.save().await?;
        self.report().await;
        Ok(())
    }

    /// Revokes what was recorded for policies that do not exist any more.
    async fn revoke_absent(&mut self, admin: &mut A) -> Result<(), BrokerFailure> {
        let (exists, now) = (self.context.exists.clone(), Instant::now().into_std());
        let lasts = (self.mode.absent_for, self.mode.absent);
        let decide = move |inventory: &mut Inventory, records: &mut Records| {
            inventory.revoke_absent(records, |policy, name| exists(policy, name), lasts, now)
        };
        let mut revocation = self.work_out(decide).await;
        let remove = std::mem::take(&mut revocation.remove);
        let (policies, acls) = (revocation.policies(), remove.len());
        let failures = self.change(admin, Difference { add: Bindings::new(), remove }).await?;
        if acls > 0 {
            tracing::warn!(
                broker = self.broker,
                policies,
                acls,
                failed = failures.len(),
                "revoked the rights of policies that do not exist any more"
            );
        }
        self.work_out(move |_, records| revocation.settle(&failures, records)).await;
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
                    Some(Message::Forget(policy, reply)) => _ = reply.send(self.forget(policy).await.1),
                    // What is recorded for the policy stays claimed.
                    Some(Message::Ensure(_, reply)) => _ = reply.send(Err(failure.clone())),
                },
            }
        }
    }

    /// Shows what is known now, over the connection that there is.
    async fn report(&mut self) {
        let connection = ConnectionState::Connected(self.facts.clone());
        let fresh = self.work_out(|inventory, _| inventory.state(connection)).await;
        self.publish.send_if_modified(|state| {
            let changed = *state != fresh;
            *state = fresh;
            changed
        });
    }

    /// Shows why there is no connection. What was known stays shown.
    fn show_failure(&self, failure: BrokerFailure) {
        self.publish.send_if_modified(|state| {
            let failed = ConnectionState::Failed(failure);
            let changed = state.connection != failed;
            state.connection = failed;
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

    use parking_lot::Mutex;

    use super::super::absent::AbsentPolicies;
    use super::super::records::{Shard, Stored};
    use super::super::session::Session;
    use super::super::{Holdings, topic};
    use super::*;
    use crate::domain::fence::Fence;

    /// A broker, and how often its session panics when it connects.
    struct Broker {
        defects: AtomicU32,
        holdings: Mutex<Holdings>,
    }

    struct Connected(Arc<Broker>);

    impl Admin for Connected {
        type Config = Arc<Broker>;

        async fn connect(broker: &Arc<Broker>) -> Result<Self, BrokerFailure> {
            let left = broker.defects.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            assert!(left.is_err(), "a defect");
            Ok(Self(broker.clone()))
        }

        async fn facts(&mut self) -> Result<ClusterFacts, BrokerFailure> {
            Ok(ClusterFacts::default())
        }

        async fn list(&mut self) -> Result<Holdings, BrokerFailure> {
            Ok(std::mem::take(&mut *self.0.holdings.lock()))
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

    /// A session, and the longest of its steps.
    fn start(defects: u32, holdings: Holdings) -> (Session, Arc<Mutex<Duration>>) {
        let mode = SessionMode {
            enforce: true,
            absent: AbsentPolicies::default(),
            resync: Duration::from_secs(60),
            absent_for: Duration::from_secs(60),
            per_namespace: 100,
        };
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let noted = longest.clone();
        let held = move |step: Duration| {
            let mut longest = noted.lock();
            *longest = step.max(*longest);
        };
        let context = Context { exists: Arc::new(|_, _| true), fence: Fence::default(), held: Arc::new(held) };
        let broker = Arc::new(Broker { defects: defects.into(), holdings: Mutex::new(holdings) });
        let records = (Records::new(Stored::default()), Nothing);
        (Session::start::<Connected, _>("kafka", broker, mode, records, context), longest)
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_the_session_and_not_its_end() {
        let (session, _) = start(2, Holdings::default());
        let mut state = session.state();
        let failed = state.wait_for(|state| matches!(state.connection, ConnectionState::Failed(_))).await.unwrap();
        assert_eq!(failed.connection, ConnectionState::Failed(panicked()));
        drop(failed);
        state.wait_for(State::is_up).await.unwrap();
    }

    #[tokio::test]
    async fn a_broker_with_very_many_acls_holds_nobody_up() {
        let bindings = (0..100_000).map(|number| topic(&number.to_string())).collect();
        let (session, longest) = start(0, Holdings { bindings, foreign: Vec::new() });
        let (mut state, began) = (session.state(), Instant::now());
        let up = state.wait_for(State::is_up).await.unwrap();
        assert_eq!(up.unmanaged.count, 100_000);
        let (took, longest) = (began.elapsed(), *longest.lock());
        assert!(longest * 20 < took, "a step of {longest:?} of {took:?}");
    }
}

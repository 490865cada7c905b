//! The session with one broker: the only writer of its ACLs.
//!
//! Policies send demands. The demands that wait at the same time are carried out as one batch: creations, then deletions. The
//! ledger knows the claims of every policy. It decides whether a binding is still needed when a policy stops claiming it, and
//! which bindings are created again when the broker has lost them.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::ledger::{BrokerState, ClaimedBindings, DriftTracker, Ledger};
use super::{Admin, BrokerFailure, ClusterFacts, Failures};
use crate::api::{BindingList, Reason};
use crate::domain::fence::Fence;
use crate::domain::grants::{Bindings, Difference, difference};

/// How many demands a batch has at most.
const MAX_BATCH: usize = 1024;
/// How many demands may wait. When the queue is full, senders wait; no demand is dropped.
const MAX_QUEUE: usize = 4096;
/// How long changes wait to be reported together: a report goes through all ACLs of the broker.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// The bindings that a policy wants on a broker.
#[derive(Clone, Debug)]
pub struct Demand {
    /// UID of the policy.
    pub policy: String,
    /// All bindings that its spec asks for.
    pub wanted: Bindings,
    /// All bindings that its status records as applied, wanted or not.
    pub recorded: Bindings,
    /// Whether to change the broker, or only to report what would change.
    pub enforce: bool,
}

/// The outcome of a demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The bindings that were created and deleted, or would be.
    pub difference: Difference,
    /// The bindings that the broker refused to change.
    pub failures: Failures,
}

/// Whether a session is connected.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ConnectionState {
    /// The first attempt has not ended yet.
    #[default]
    Connecting,
    /// It is connected to this cluster.
    Connected(ClusterFacts),
    /// The last attempt failed, or the connection was lost.
    Failed(BrokerFailure),
}

/// The state of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Whether it is connected.
    pub connection: ConnectionState,
    /// How many claimed bindings the broker has.
    pub applied: u32,
    /// The ACLs that no policy claims.
    pub unmanaged: BindingList,
    /// The bindings that policies applied and the broker has lost.
    pub missing: BindingList,
    /// How many bindings were found missing since the session began.
    pub drift_found: u64,
    /// How many of them were created again.
    pub drift_repaired: u64,
}

impl State {
    /// Whether the first attempt to connect has ended, in whatever way.
    #[must_use]
    pub fn has_result(&self) -> bool {
        self.connection != ConnectionState::Connecting
    }

    /// Whether the broker answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.connection, ConnectionState::Connected(_))
    }

    /// Whether the operator may change ACLs.
    #[must_use]
    pub fn may_change(&self) -> bool {
        matches!(&self.connection, ConnectionState::Connected(facts) if facts.may_alter)
    }
}

/// A handle on a session. The session ends when the last handle is dropped.
#[derive(Clone)]
pub struct Session {
    demands: mpsc::Sender<Message>,
    state: watch::Receiver<State>,
}

enum Message {
    Ensure(Demand, oneshot::Sender<Result<Outcome, BrokerFailure>>),
    Forget(String),
}

impl Session {
    /// Starts a session. `broker` is the name of its `BrokerConnection`, for the log. `claims` are the recorded bindings of
    /// every policy on this broker: without them the first deletion could remove a binding that another policy needs, whose
    /// demand has not arrived yet. Nothing is changed once `fence` has fallen.
    pub fn start<A: Admin>(
        broker: &str,
        config: A::Config,
        enforce: bool,
        resync: Duration,
        claims: ClaimedBindings,
        fence: Fence,
    ) -> Self {
        let (demands, inbox) = mpsc::channel(MAX_QUEUE);
        let (publish, state) = watch::channel(State::default());
        let worker = Worker::<A> {
            broker: broker.to_owned(),
            config,
            enforce,
            resync,
            fence,
            ledger: Ledger::new(claims),
            state: BrokerState::default(),
            facts: ClusterFacts::default(),
            drift: DriftTracker::default(),
            inbox,
            publish,
        };
        tokio::spawn(worker.run());
        Self { demands, state }
    }

    /// Carries out a demand, and returns its outcome.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses the operator as a whole.
    pub async fn ensure(&self, demand: Demand) -> Result<Outcome, BrokerFailure> {
        let stopped = || BrokerFailure {
            reason: Reason::BrokerNotReady,
            message: "the session with the broker is being replaced; retrying".into(),
        };
        let (reply, answer) = oneshot::channel();
        self.demands.send(Message::Ensure(demand, reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Drops the claims of a deleted policy. Its bindings stay on the broker.
    pub async fn forget(&self, policy: &str) {
        // A session that has ended has no claims.
        let _ = self.demands.send(Message::Forget(policy.to_owned())).await;
    }

    /// The state of the session, and a way to wait for changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

struct Worker<A: Admin> {
    broker: String,
    config: A::Config,
    enforce: bool,
    resync: Duration,
    fence: Fence,
    ledger: Ledger,
    state: BrokerState,
    facts: ClusterFacts,
    drift: DriftTracker,
    inbox: mpsc::Receiver<Message>,
    publish: watch::Sender<State>,
}

impl<A: Admin> Worker<A> {
    async fn run(mut self) {
        let mut attempts = 0_u32;
        loop {
            let Some(connected) = self.connect().await else { return };
            let failure = match connected {
                Ok(admin) => match self.serve(admin, &mut attempts).await {
                    Ok(()) => return,
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
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
    async fn serve(&mut self, mut admin: A, attempts: &mut u32) -> Result<(), BrokerFailure> {
        self.resync(&mut admin).await?;
        *attempts = 0;
        let mut tick = interval_at(Instant::now() + self.resync, self.resync);
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
                    let Some(first) = first else { return Ok(()) };
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
                    self.report(Ok(()));
                }
                _ = tick.tick() => self.resync(&mut admin).await?,
            }
        }
    }

    /// Carries out a batch, and returns whether claims or ACLs changed.
    async fn carry_out(&mut self, admin: &mut A, batch: Vec<Message>) -> Result<bool, BrokerFailure> {
        let mut demands = Vec::new();
        let mut changed = false;
        for message in batch {
            match message {
                Message::Forget(policy) => changed |= self.ledger.set(&policy, &Bindings::new()),
                Message::Ensure(demand, reply) => {
                    // In mode Observe a policy keeps its claims on the bindings that it has applied.
                    let enforced = demand.enforce && self.enforce;
                    let claim = if enforced { &demand.wanted } else { &demand.recorded };
                    changed |= self.ledger.set(&demand.policy, claim);
                    demands.push((demand, enforced, reply));
                }
            }
        }
        // All claims are updated before any deletion is considered: two policies that stop claiming a binding in one batch
        // must not keep it for each other.
        let differences: Vec<Difference> = demands
            .iter()
            .map(|(demand, _, _)| {
                difference(
                    &demand.wanted,
                    &demand.recorded,
                    |binding| self.state.contains(binding),
                    |binding| self.ledger.needs_besides(binding, &demand.policy),
                )
            })
            .collect();
        let enforced = || demands.iter().zip(&differences).filter(|((_, enforced, _), _)| *enforced);
        let add: Bindings = enforced().flat_map(|(_, difference)| difference.add.clone()).collect();
        let remove: Bindings = enforced().flat_map(|(_, difference)| difference.remove.clone()).collect();
        changed |= !add.is_empty() || !remove.is_empty();
        let result = self.change(admin, &add, &remove).await;
        for ((demand, enforced, reply), difference) in demands.into_iter().zip(differences) {
            let answer = match &result {
                Err(failure) => Err(failure.clone()),
                Ok(failures) => {
                    let touched = difference.add.iter().chain(&difference.remove);
                    let failures: Failures = touched
                        .filter_map(|binding| Some((binding.clone(), failures.get(binding)?.clone())))
                        .filter(|_| enforced)
                        .collect();
                    Ok(Outcome { difference, failures })
                }
            };
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

    /// Creates bindings first, then deletes others.
    async fn change(&mut self, admin: &mut A, add: &Bindings, remove: &Bindings) -> Result<Failures, BrokerFailure> {
        let mut failures = Failures::new();
        if !add.is_empty() {
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

    /// Compares all ACLs of the broker with the ledger, and creates the missing ones again.
    async fn resync(&mut self, admin: &mut A) -> Result<(), BrokerFailure> {
        self.facts = admin.facts().await?;
        let listed = BrokerState::new(admin.list().await?, &self.ledger);
        let missing = listed.missing(&self.ledger);
        let before = std::mem::replace(&mut self.state, listed);
        self.drift.add_missing(&missing, &before);
        if self.enforce && !missing.is_empty() {
            self.change(admin, &missing, &Bindings::new()).await?;
        }
        self.drift.remove_resolved(&self.ledger, &self.state);
        self.report(Ok(()));
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
                    Some(Message::Forget(policy)) => _ = self.ledger.set(&policy, &Bindings::new()),
                    Some(Message::Ensure(demand, reply)) => {
                        let mut claim = demand.recorded;
                        if demand.enforce && self.enforce {
                            claim.extend(demand.wanted);
                        }
                        self.ledger.set(&demand.policy, &claim);
                        let _ = reply.send(Err(failure.clone()));
                    }
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
        };
        self.publish.send_if_modified(|state| {
            let changed = *state != fresh;
            *state = fresh;
            changed
        });
    }
}

fn not_leading() -> BrokerFailure {
    BrokerFailure {
        reason: Reason::BrokerNotReady,
        message: "this process lost the lease; writes are fenced off".into(),
    }
}

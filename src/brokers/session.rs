//! The session with one broker: the only place that changes it.
//!
//! Policies ask for what they want; requests that wait together go out as one batch: additions, then removals. The
//! ledger of what every policy wants decides what is still needed when one of them lets go, and what has to be put
//! back when the broker lost it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::ledger::{Claims, Drift, Held, Ledger};
use super::{Admin, BrokerFailure, ClusterFacts, Failures};
use crate::api::{BindingList, Reason};
use crate::domain::fence::Fence;
use crate::domain::grants::{Bindings, Difference, difference};

/// How many requests form a batch at most.
const BATCH: usize = 1024;
/// How many may wait; who asks then waits too, nothing is dropped.
const QUEUE: usize = 4096;
/// How long changes gather before they are reported: a report looks at everything that the broker holds.
const GATHER: Duration = Duration::from_millis(500);

/// What a policy wants of a broker.
#[derive(Clone, Debug)]
pub struct Demand {
    /// UID of the policy.
    pub policy: String,
    /// All bindings that it wants.
    pub wanted: Bindings,
    /// All bindings that it recorded as applied, wanted or not.
    pub recorded: Bindings,
    /// Whether to change the broker, or only to say what would change.
    pub enforce: bool,
}

/// What became of a demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What had to change, or would have to.
    pub difference: Difference,
    /// What the broker refused.
    pub failures: Failures,
}

/// How the session stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Connected to what, or why not; `None` before the first attempt has ended.
    pub connection: Option<Result<ClusterFacts, BrokerFailure>>,
    /// How many bindings policies hold there.
    pub applied: u32,
    /// What others made.
    pub unmanaged: BindingList,
    /// What policies applied and the broker lacks.
    pub missing: BindingList,
    /// How many bindings were found missing since the session began.
    pub drift_found: u64,
    /// How many of them were put back.
    pub drift_repaired: u64,
}

impl State {
    /// Whether the broker answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.connection, Some(Ok(_)))
    }

    /// Whether changes can be made.
    #[must_use]
    pub fn may_change(&self) -> bool {
        matches!(&self.connection, Some(Ok(facts)) if facts.may_alter)
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
    /// Starts a session. `claims` are the recorded bindings of every policy on this broker: without them the first
    /// removal could take what a policy needs that has not been heard yet. Nothing is changed once `fence` has fallen.
    pub fn start<A: Admin>(config: A::Config, enforce: bool, resync: Duration, claims: Claims, fence: Fence) -> Self {
        let (demands, inbox) = mpsc::channel(QUEUE);
        let (publish, state) = watch::channel(State::default());
        let worker = Worker::<A> {
            config,
            enforce,
            resync,
            fence,
            ledger: Ledger::new(claims),
            held: Held::default(),
            facts: ClusterFacts::default(),
            drift: Drift::default(),
            inbox,
            publish,
        };
        tokio::spawn(worker.run());
        Self { demands, state }
    }

    /// Brings the broker to what a policy wants, and says what became of it.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses the operator as a whole.
    pub async fn ensure(&self, demand: Demand) -> Result<Outcome, BrokerFailure> {
        let stopped = || BrokerFailure {
            reason: Reason::BrokerNotReady,
            message: "the session with the broker is being replaced; it is tried again".into(),
        };
        let (reply, answer) = oneshot::channel();
        self.demands.send(Message::Ensure(demand, reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Forgets a policy that is gone; what it held stays on the broker.
    pub async fn forget(&self, policy: &str) {
        // A session that has ended has nothing to forget.
        let _ = self.demands.send(Message::Forget(policy.to_owned())).await;
    }

    /// How the session stands, and a way to wait for changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

struct Worker<A: Admin> {
    config: A::Config,
    enforce: bool,
    resync: Duration,
    fence: Fence,
    ledger: Ledger,
    held: Held,
    facts: ClusterFacts,
    drift: Drift,
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
            tracing::warn!(reason = failure.reason.as_str(), message = failure.message, "broker session interrupted");
            self.report(Err(failure));
            let pause = Duration::from_millis((250 * 2_u64.saturating_pow(attempts.min(8))).min(30_000));
            attempts = attempts.saturating_add(1);
            if self.refuse_during(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Connects. At the first attempt those who ask wait for it; later they are told what was wrong the last time, as
    /// a broker that hangs must not hold them. `None` when nobody will ask any more.
    async fn connect(&mut self) -> Option<Result<A, BrokerFailure>> {
        let config = self.config.clone();
        let connecting = A::connect(&config);
        if self.publish.borrow().connection.is_none() {
            return Some(connecting.await);
        }
        self.refuse_during(connecting).await
    }

    /// Serves demands over one connection, until nobody asks any more (`Ok`) or the connection fails.
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
                    while batch.len() < BATCH && let Ok(next) = self.inbox.try_recv() {
                        batch.push(next);
                    }
                    if self.settle(&mut admin, batch).await? {
                        report_at.get_or_insert(Instant::now() + GATHER);
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

    /// Carries out a batch, and says whether it changed anything.
    async fn settle(&mut self, admin: &mut A, batch: Vec<Message>) -> Result<bool, BrokerFailure> {
        let mut demands = Vec::new();
        let mut changed = false;
        for message in batch {
            match message {
                Message::Forget(policy) => changed |= self.ledger.set(&policy, &Bindings::new()),
                Message::Ensure(demand, reply) => {
                    // What is only observed keeps what it has applied; what is enforced claims what it wants.
                    let enforced = demand.enforce && self.enforce;
                    let claim = if enforced { &demand.wanted } else { &demand.recorded };
                    changed |= self.ledger.set(&demand.policy, claim);
                    demands.push((demand, enforced, reply));
                }
            }
        }
        // All claims stand before any removal is considered, so two policies that let go together do not keep each
        // other's bindings alive.
        let differences: Vec<Difference> = demands
            .iter()
            .map(|(demand, _, _)| {
                difference(
                    &demand.wanted,
                    &demand.recorded,
                    |binding| self.held.contains(binding),
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
            tracing::debug!(policy = demand.policy, ok = answer.is_ok(), "settled");
            // Nobody waits any more when the operator is stopping.
            let _ = reply.send(answer);
        }
        if !result?.is_empty() {
            // The rights of the operator itself may have changed.
            self.facts = admin.facts().await?;
            self.report(Ok(()));
        }
        Ok(changed)
    }

    /// Additions first, then removals.
    async fn change(&mut self, admin: &mut A, add: &Bindings, remove: &Bindings) -> Result<Failures, BrokerFailure> {
        let mut failures = Failures::new();
        if !add.is_empty() {
            failures.extend(self.fence.guard(admin.add(add)).await.ok_or_else(not_leading)??);
            for binding in add.iter().filter(|binding| !failures.contains_key(*binding)) {
                self.held.insert(self.ledger.share(binding));
            }
        }
        if !remove.is_empty() {
            let refused = self.fence.guard(admin.remove(remove)).await.ok_or_else(not_leading)??;
            for binding in remove.iter().filter(|binding| !refused.contains_key(*binding)) {
                self.held.remove(binding);
            }
            failures.extend(refused);
        }
        Ok(failures)
    }

    /// Compares the whole broker with the ledger, and puts back what is missing.
    async fn resync(&mut self, admin: &mut A) -> Result<(), BrokerFailure> {
        self.facts = admin.facts().await?;
        let held = Held::new(admin.list().await?, &self.ledger);
        let missing = held.missing(&self.ledger);
        let before = std::mem::replace(&mut self.held, held);
        self.drift.find(&missing, &before);
        if self.enforce && !missing.is_empty() {
            self.change(admin, &missing, &Bindings::new()).await?;
        }
        self.drift.settle(&self.ledger, &self.held);
        self.report(Ok(()));
        Ok(())
    }

    /// Answers everybody who asks until something else has ended; `None` when nobody will ask any more.
    async fn refuse_during<T>(&mut self, until: impl Future<Output = T>) -> Option<T> {
        let failure = match &self.publish.borrow().connection {
            Some(Err(failure)) => failure.clone(),
            _ => BrokerFailure { reason: Reason::BrokerNotReady, message: "not connected yet".into() },
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
            connection: Some(connection.map(|()| self.facts.clone())),
            applied: self.held.applied(&self.ledger),
            unmanaged: self.held.unmanaged(&self.ledger),
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
    BrokerFailure { reason: Reason::BrokerNotReady, message: "this process does not hold the lease any more".into() }
}

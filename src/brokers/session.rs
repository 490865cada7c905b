//! The session with one broker: the only place that changes it.
//!
//! Policies ask for what they want; requests that wait together go out as one batch: additions, then verification by
//! the broker's own list, then removals. The ledger of what every policy wants decides what is still needed when one
//! of them lets go, and what has to be put back when the broker lost it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::{Admin, BrokerFailure, ClusterFacts, Failures, Holdings};
use crate::api::{AppliedBinding, BindingList, Reason};
use crate::domain::fence::Fence;
use crate::domain::grants::{Bindings, Difference, difference};

/// How many requests form a batch at most.
const BATCH: usize = 1024;
/// How many may wait; who asks then waits too, nothing is dropped.
const QUEUE: usize = 4096;
/// How long an addition may take to show up in the broker's list.
const PROPAGATION: Duration = Duration::from_secs(5);
/// Batches of so few principals are verified by listing just them.
const FEW: usize = 8;

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
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Connected to what, or why not; `None` before the first attempt has ended.
    pub connection: Option<Result<ClusterFacts, BrokerFailure>>,
    /// How many bindings policies hold there.
    pub applied: u32,
    /// What others made.
    pub unmanaged: BindingList,
    /// What policies applied and the broker lacks.
    pub missing: BindingList,
    /// How many bindings were put back since the session began.
    pub repaired: u64,
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
    pub fn start<A: Admin>(
        config: A::Config,
        enforce: bool,
        resync: Duration,
        claims: HashMap<String, Bindings>,
        fence: Fence,
    ) -> Self {
        let (demands, inbox) = mpsc::channel(QUEUE);
        let (publish, state) = watch::channel(State {
            connection: None,
            applied: 0,
            unmanaged: BindingList::default(),
            missing: BindingList::default(),
            repaired: 0,
        });
        let worker = Worker::<A> {
            config,
            enforce,
            resync,
            fence,
            ledger: Ledger::new(claims),
            held: Holdings::default(),
            repaired: 0,
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

/// Who wants what.
struct Ledger {
    by_policy: HashMap<String, Bindings>,
    counts: HashMap<AppliedBinding, u32>,
}

impl Ledger {
    fn new(claims: HashMap<String, Bindings>) -> Self {
        let mut ledger = Self { by_policy: HashMap::new(), counts: HashMap::new() };
        for (policy, bindings) in claims {
            ledger.set(&policy, bindings);
        }
        ledger
    }

    fn set(&mut self, policy: &str, bindings: Bindings) {
        for binding in &bindings {
            *self.counts.entry(binding.clone()).or_insert(0) += 1;
        }
        let before = if bindings.is_empty() {
            self.by_policy.remove(policy)
        } else {
            self.by_policy.insert(policy.to_owned(), bindings)
        };
        for binding in before.into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&binding) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&binding);
                }
            }
        }
    }

    fn needs(&self, binding: &AppliedBinding) -> bool {
        self.counts.contains_key(binding)
    }
}

struct Worker<A: Admin> {
    config: A::Config,
    enforce: bool,
    resync: Duration,
    fence: Fence,
    ledger: Ledger,
    held: Holdings,
    repaired: u64,
    inbox: mpsc::Receiver<Message>,
    publish: watch::Sender<State>,
}

impl<A: Admin> Worker<A> {
    async fn run(mut self) {
        let mut attempts = 0_u32;
        loop {
            match A::connect(&self.config).await {
                Ok((admin, facts)) => {
                    attempts = 0;
                    match self.serve(admin, facts).await {
                        Ok(()) => return,
                        Err(failure) => self.disconnected(failure),
                    }
                }
                Err(failure) => self.disconnected(failure),
            }
            let pause = Duration::from_millis((250 * 2_u64.saturating_pow(attempts.min(8))).min(30_000));
            attempts = attempts.saturating_add(1);
            if !self.refuse_for(pause).await {
                return;
            }
        }
    }

    /// Serves demands over one connection, until nobody asks any more (`Ok`) or the connection fails.
    async fn serve(&mut self, mut admin: A, facts: ClusterFacts) -> Result<(), BrokerFailure> {
        self.resync(&mut admin).await?;
        self.report(Some(Ok(facts)));
        let mut tick = interval_at(Instant::now() + self.resync, self.resync);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                first = self.inbox.recv() => {
                    let Some(first) = first else { return Ok(()) };
                    let mut batch = vec![first];
                    while batch.len() < BATCH && let Ok(next) = self.inbox.try_recv() {
                        batch.push(next);
                    }
                    self.settle(&mut admin, batch).await?;
                }
                _ = tick.tick() => self.resync(&mut admin).await?,
            }
            self.report(None);
        }
    }

    async fn settle(&mut self, admin: &mut A, batch: Vec<Message>) -> Result<(), BrokerFailure> {
        let mut demands = Vec::new();
        for message in batch {
            match message {
                Message::Forget(policy) => self.ledger.set(&policy, Bindings::new()),
                Message::Ensure(demand, reply) => {
                    // What is only observed keeps what it has applied; what is enforced claims what it wants.
                    let enforced = demand.enforce && self.enforce;
                    let claim = if enforced { &demand.wanted } else { &demand.recorded };
                    self.ledger.set(&demand.policy, claim.clone());
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
                    |binding| self.held.bindings.contains(binding),
                    |binding| self.ledger.needs(binding) && !demand.recorded_only(binding, &self.ledger),
                )
            })
            .collect();
        let enforced = || demands.iter().zip(&differences).filter(|((_, enforced, _), _)| *enforced);
        let add: Bindings = enforced().flat_map(|(_, difference)| difference.add.clone()).collect();
        let remove: Bindings = enforced().flat_map(|(_, difference)| difference.remove.clone()).collect();
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
        result.map(|_| ())
    }

    /// Additions first, then verification, then removals.
    async fn change(&mut self, admin: &mut A, add: &Bindings, remove: &Bindings) -> Result<Failures, BrokerFailure> {
        let mut failures = Failures::new();
        if !add.is_empty() {
            failures.extend(self.fence.guard(admin.add(add)).await.ok_or_else(not_leading)??);
            let expected: Bindings = add.iter().filter(|binding| !failures.contains_key(*binding)).cloned().collect();
            failures.extend(self.verify(admin, &expected).await?);
        }
        if !remove.is_empty() {
            let refused = self.fence.guard(admin.remove(remove)).await.ok_or_else(not_leading)??;
            for binding in remove.iter().filter(|binding| !refused.contains_key(*binding)) {
                self.held.bindings.remove(binding);
            }
            failures.extend(refused);
        }
        Ok(failures)
    }

    /// Waits until the broker itself lists what was added: it answers before all of it is in force.
    async fn verify(&mut self, admin: &mut A, expected: &Bindings) -> Result<Failures, BrokerFailure> {
        let principals: BTreeSet<&String> = expected.iter().map(|binding| &binding.principal).collect();
        let few: Option<Vec<String>> = (principals.len() <= FEW).then(|| principals.into_iter().cloned().collect());
        let deadline = Instant::now() + PROPAGATION;
        let mut pause = Duration::from_millis(5);
        loop {
            let listed = admin.list(few.as_deref()).await?;
            let absent: Bindings = expected.difference(&listed.bindings).cloned().collect();
            match few {
                Some(_) => self.held.bindings.extend(listed.bindings),
                None => self.held = listed,
            }
            if absent.is_empty() {
                return Ok(Failures::new());
            }
            if Instant::now() >= deadline {
                let message = "the broker accepted it but does not list it; it is tried again";
                return Ok(absent.into_iter().map(|binding| (binding, message.to_owned())).collect());
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Compares the whole broker with the ledger, and puts back what is missing.
    async fn resync(&mut self, admin: &mut A) -> Result<(), BrokerFailure> {
        self.held = admin.list(None).await?;
        let missing = self.missing();
        if !self.enforce || missing.is_empty() {
            return Ok(());
        }
        let failures = self.change(admin, &missing, &Bindings::new()).await?;
        self.repaired += (missing.len() - failures.len()) as u64;
        Ok(())
    }

    fn missing(&self) -> Bindings {
        self.ledger.counts.keys().filter(|binding| !self.held.bindings.contains(*binding)).cloned().collect()
    }

    fn disconnected(&mut self, failure: BrokerFailure) {
        tracing::warn!(reason = failure.reason.as_str(), message = failure.message, "broker session interrupted");
        self.report(Some(Err(failure)));
    }

    /// Answers everybody who asks while there is no connection; `false` when nobody will ask any more.
    async fn refuse_for(&mut self, pause: Duration) -> bool {
        let failure = match &self.publish.borrow().connection {
            Some(Err(failure)) => failure.clone(),
            _ => BrokerFailure { reason: Reason::BrokerNotReady, message: "not connected yet".into() },
        };
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return true,
                message = self.inbox.recv() => match message {
                    None => return false,
                    Some(Message::Forget(policy)) => self.ledger.set(&policy, Bindings::new()),
                    Some(Message::Ensure(demand, reply)) => {
                        let mut claim = demand.recorded;
                        if demand.enforce && self.enforce {
                            claim.extend(demand.wanted);
                        }
                        self.ledger.set(&demand.policy, claim);
                        let _ = reply.send(Err(failure.clone()));
                    }
                },
            }
        }
    }

    fn report(&self, connection: Option<Result<ClusterFacts, BrokerFailure>>) {
        let unmanaged = self.held.bindings.iter().filter(|binding| !self.ledger.needs(binding));
        let unmanaged: BTreeSet<String> =
            unmanaged.map(ToString::to_string).chain(self.held.foreign.iter().cloned()).collect();
        let fresh = State {
            connection: connection.or_else(|| self.publish.borrow().connection.clone()),
            applied: count(self.ledger.counts.keys().filter(|binding| self.held.bindings.contains(*binding)).count()),
            unmanaged: list(unmanaged),
            missing: list(self.missing().iter().map(ToString::to_string).collect()),
            repaired: self.repaired,
        };
        self.publish.send_if_modified(|state| {
            let changed = *state != fresh;
            *state = fresh;
            changed
        });
    }
}

impl Demand {
    /// Whether a binding is claimed by nothing but this policy's own record: then its claim does not keep it.
    fn recorded_only(&self, binding: &AppliedBinding, ledger: &Ledger) -> bool {
        let own = ledger.by_policy.get(&self.policy).is_some_and(|claims| claims.contains(binding));
        own && ledger.counts.get(binding) == Some(&1)
    }
}

fn not_leading() -> BrokerFailure {
    BrokerFailure { reason: Reason::BrokerNotReady, message: "this process does not hold the lease any more".into() }
}

fn list(all: BTreeSet<String>) -> BindingList {
    BindingList { count: count(all.len()), first: all.into_iter().take(50).collect() }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

//! Work that would hold a worker for too long runs on a thread of its own, within few turns: namespaces take turns, and within a
//! namespace the networks of its callers. So nobody's work delays more of others than one piece of it.

use std::collections::VecDeque;
use std::future::pending;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::stalls::elsewhere;

/// Work up to this size is done at once, where a change of threads would cost more. Its unit is a byte that is hashed with
/// SHA-256, so it holds a worker for less than a millisecond, and for a few without hardware for SHA-256.
const SMALL: usize = 1 << 20;

/// For whom work is done.
#[derive(Clone, Debug)]
pub struct Party {
    /// Namespace of the object that the work is for.
    pub namespace: Arc<str>,
    /// Network of the caller.
    pub network: IpAddr,
}

/// What each caller of a namespace waits for.
type Callers = VecDeque<(IpAddr, VecDeque<oneshot::Sender<Turn>>)>;

/// Who waits for a turn, in order.
#[derive(Default)]
struct Queue(VecDeque<(Arc<str>, Callers)>);

impl Queue {
    fn push(&mut self, party: Party, waiting: oneshot::Sender<Turn>) {
        let callers = entry(&mut self.0, party.namespace);
        entry(callers, party.network).push_back(waiting);
    }

    /// The next in line; its namespace and its network go to the end.
    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        let (namespace, mut callers) = self.0.pop_front()?;
        let (network, mut waiting) = callers.pop_front()?;
        let next = waiting.pop_front();
        if !waiting.is_empty() {
            callers.push_back((network, waiting));
        }
        if !callers.is_empty() {
            self.0.push_back((namespace, callers));
        }
        next
    }
}

fn entry<K: PartialEq, V: Default>(entries: &mut VecDeque<(K, V)>, key: K) -> &mut V {
    let index = entries.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        entries.push_back((key, V::default()));
        entries.len() - 1
    });
    &mut entries[index].1
}

struct State {
    free: usize,
    queue: Queue,
}

/// Hands out turns.
pub struct Turns(Mutex<State>);

/// The right to use a thread; the next in line gets it when it is dropped.
struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.0.lock();
            let mut next = state.queue.pop();
            // Callers that have left do not take turns.
            while next.as_ref().is_some_and(oneshot::Sender::is_closed) {
                next = state.queue.pop();
            }
            state.free += usize::from(next.is_none());
            next
        };
        if let Some(next) = next {
            // One that leaves just now drops its turn, which comes back to here.
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

impl Turns {
    /// Turns for half as many threads as there are workers.
    #[must_use]
    pub fn new(workers: NonZeroUsize) -> Arc<Self> {
        let free = workers.get().div_ceil(2);
        Arc::new(Self(Mutex::new(State { free, queue: Queue::default() })))
    }

    /// Does work of this size, at once or in turn. If the caller leaves meanwhile, its place is free.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        size: usize,
        party: Party,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if size <= SMALL {
            return work();
        }
        let turn = self.turn(party).await;
        elsewhere(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
    }

    async fn turn(self: &Arc<Self>, party: Party) -> Turn {
        let (waiting, turn) = oneshot::channel();
        {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Turn(self.clone());
            }
            state.queue.push(party, waiting);
        }
        match turn.await {
            Ok(turn) => turn,
            // The queue keeps whoever waits, so this does not happen.
            Err(_) => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn party(namespace: &str, last: u8) -> Party {
        Party { namespace: namespace.into(), network: [192, 0, 2, last].into() }
    }

    fn turns() -> Arc<Turns> {
        Turns::new(NonZeroUsize::MIN)
    }

    #[tokio::test]
    async fn namespaces_take_turns_and_callers_within_them() {
        let turns = turns();
        let (go, going) = mpsc::channel::<()>();
        let first = turns.run(SMALL + 1, party("evil", 1), move || going.recv().unwrap());
        let order = Arc::new(Mutex::new(Vec::new()));
        let asked = [("evil", 1), ("evil", 1), ("evil", 1), ("evil", 2), ("shop", 3), ("shop", 4)];
        let others = futures::future::join_all(asked.map(|(namespace, last)| {
            let order = order.clone();
            turns.run(SMALL + 1, party(namespace, last), move || order.lock().push((namespace, last)))
        }));
        let release = async {
            tokio::task::yield_now().await;
            go.send(()).unwrap();
        };
        tokio::join!(first, others, release);
        let expected = [("evil", 1), ("shop", 3), ("evil", 2), ("shop", 4), ("evil", 1), ("evil", 1)];
        assert_eq!(*order.lock(), expected);
        assert_eq!(turns.0.lock().free, 1);
    }

    #[tokio::test]
    async fn whoever_leaves_takes_no_turn() {
        let turns = turns();
        let held = turns.turn(party("evil", 1)).await;
        let mut left = Box::pin(turns.turn(party("evil", 1)));
        assert!(futures::poll!(&mut left).is_pending());
        let mut waits = Box::pin(turns.turn(party("shop", 2)));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(left);
        drop(held);
        assert!(futures::poll!(&mut waits).is_ready());
        assert_eq!(turns.0.lock().free, 1, "the turn of the ready one was dropped");
    }

    #[tokio::test]
    async fn small_work_needs_no_turn() {
        let turns = turns();
        let _held = turns.turn(party("evil", 1)).await;
        assert_eq!(turns.run(SMALL, party("shop", 2), || 7).await, 7);
    }
}

//! The threads that serve connections. A connection stays on one thread with all its work, and so do the connections to targets
//! that this work opens: no step of a delivery wakes up another thread.

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::metrics::FrontMetrics;
use super::stalls::{measured, record_here};

thread_local! {
    /// The index of the worker that this thread is.
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The threads that serve connections. They end when this is dropped, with everything that still runs on them.
pub struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    /// Has a clone in each connection on this thread, so that they are counted.
    connections: Arc<()>,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl Workers {
    /// Starts this many threads. The metrics say how long they are held.
    ///
    /// # Errors
    /// When the system refuses a thread or what its event loop needs.
    pub fn start(count: NonZeroUsize, metrics: &FrontMetrics) -> io::Result<Self> {
        (0..count.get()).map(|index| Worker::start(index, metrics)).collect::<io::Result<_>>().map(Self)
    }

    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.0.len()).unwrap_or(NonZeroUsize::MIN)
    }

    /// Something of which each of these threads has its own.
    pub fn each<T>(&self, make: impl FnMut() -> T) -> PerWorker<T> {
        PerWorker(std::iter::repeat_with(make).take(self.0.len()).collect())
    }

    /// Serves a connection on the thread that has the fewest.
    pub fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let Some(worker) = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.connections)) else { return };
        let connection = worker.connections.clone();
        let serving = measured(serving);
        worker.runtime.spawn(async move {
            serving.await;
            drop(connection);
        });
    }
}

impl Worker {
    fn start(index: usize, metrics: &FrontMetrics) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        let stalls = metrics.stalls.clone();
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            INDEX.set(index);
            record_here(stalls);
            // It ends with an error, because nothing is ever sent.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, connections: Arc::default(), _running: running })
    }
}

/// Something of which each worker has its own.
pub struct PerWorker<T>(Box<[T]>);

impl<T> PerWorker<T> {
    /// What the current thread has; other threads than workers share what the first worker has.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0[INDEX.get()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;
    use tokio::sync::{Barrier, mpsc};

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_stay_on_their_thread() {
        let workers = Workers::start(NonZeroUsize::new(3).unwrap(), &FrontMetrics::default()).unwrap();
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let own = Arc::new(workers.each(|| Mutex::new(0)));
        let (done, mut all) = mpsc::channel::<()>(1);
        // None of them ends before all have come: the place of one that has ended would be given away again.
        let all_here = Arc::new(Barrier::new(12));
        for connection in 0..12 {
            let (own, seen, done, all_here) = (own.clone(), seen.clone(), done.clone(), all_here.clone());
            workers.spawn(async move {
                all_here.wait().await;
                for _ in 0..10 {
                    *own.get().lock() += 1;
                    seen.lock().entry(connection).or_insert_with(Vec::new).push(thread::current().id());
                    tokio::task::yield_now().await;
                }
                drop(done);
            });
        }
        drop(done);
        assert!(all.recv().await.is_none());
        let seen = seen.lock();
        assert!(seen.values().all(|threads| threads.iter().all(|thread| *thread == threads[0])));
        assert_eq!(own.0.iter().map(|count| *count.lock()).collect::<Vec<_>>(), [40; 3]);
    }
}

//! How long a thread is held by one step of work: meanwhile nothing else on it goes on. What takes long is done elsewhere.

use std::future::{pending, poll_fn};
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// What is read up to this length, in bytes, is worked on at once: in less than a millisecond.
const SMALL: usize = 64 << 10;
/// How much that is longer is worked on at the same time: each takes some megabytes of memory.
static PLACES: Semaphore = Semaphore::const_new(2);

/// Shorter steps are not noted.
const NOTICED: Duration = Duration::from_millis(1);
/// Bounds of a histogram of steps, in seconds.
const BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 25.0];

/// A histogram of steps.
#[must_use]
pub fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Work whose steps are noted when they take a millisecond or longer. It has a place of its own in memory, since a future that
/// contains another one takes twice its size.
pub fn measured<F: Future>(work: F, note: impl Fn(Duration)) -> impl Future<Output = F::Output> {
    let mut work = Box::pin(work);
    poll_fn(move |context| {
        let began = Instant::now();
        let polled = work.as_mut().poll(context);
        let held = began.elapsed();
        if held >= NOTICED {
            note(held);
        }
        polled
    })
}

/// Does work on a thread of its own. If it panics, so does the caller.
pub async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(result) => result,
        Err(Ok(panic)) => resume_unwind(panic),
        // The process ends, and so does whoever waits here.
        Err(Err(_)) => pending().await,
    }
}

/// Does work on something that was read and has this length, in bytes: at once, or elsewhere if it is long.
pub async fn by_length<T: Send + 'static>(length: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if length <= SMALL {
        return work();
    }
    // It is never closed. Whoever leaves meanwhile does not end the work, so the work has the place.
    let place = PLACES.acquire().await;
    elsewhere(move || {
        let result = work();
        drop(place);
        result
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use futures::future::join_all;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn long_work_is_done_elsewhere_and_little_of_it_at_once() {
        let here = std::thread::current().id();
        assert_eq!(by_length(SMALL, || std::thread::current().id()).await, here);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counts: &'static (AtomicUsize, AtomicUsize) = Box::leak(Box::new((running, most)));
        let work = || {
            counts.1.fetch_max(counts.0.fetch_add(1, Relaxed) + 1, Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            counts.0.fetch_sub(1, Relaxed);
            std::thread::current().id()
        };
        let left = timeout(Duration::from_millis(1), by_length(SMALL + 1, work)).await;
        assert!(left.is_err(), "whoever waited has left, and the work goes on");
        let threads = join_all((0..6).map(|_| by_length(SMALL + 1, work))).await;
        assert!(threads.iter().all(|thread| *thread != here));
        assert_eq!(counts.1.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn work_is_noted_and_waiting_is_not() {
        let (wait, work) = (Duration::from_millis(200), Duration::from_millis(20));
        let noted = RefCell::new(Vec::new());
        let output = measured(
            async {
                tokio::time::sleep(wait).await;
                std::thread::sleep(work);
                tokio::time::sleep(wait).await;
                7
            },
            |held| noted.borrow_mut().push(held),
        )
        .await;
        let longest = noted.borrow().iter().copied().max().unwrap();
        assert_eq!(output, 7);
        assert!(longest >= work && longest < wait, "{longest:?}");
    }
}

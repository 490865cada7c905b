//! How long a thread is held by one step of work: meanwhile nothing else on it goes on.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;

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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

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

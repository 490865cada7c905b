//! How long a worker is held by one step of work: meanwhile nothing else on its thread goes on.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::Handle;

/// Shorter steps are not recorded.
const NOTICED: Duration = Duration::from_millis(1);
/// Bounds of the histogram, in seconds.
const BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 25.0];

thread_local! {
    /// Where the steps of this thread are recorded.
    static STALLS: OnceCell<Histogram> = const { OnceCell::new() };
}

/// A histogram of steps.
pub(super) fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Records the steps of this thread from now on.
pub(super) fn record_here(stalls: Histogram) {
    // Every thread does this once.
    STALLS.with(|here| _ = here.set(stalls));
}

/// Work whose steps are measured. It has a place of its own, since a future that contains another one takes twice its size.
pub fn measured<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let mut work = Box::pin(work);
    poll_fn(move |context| {
        let began = Instant::now();
        let polled = work.as_mut().poll(context);
        let held = began.elapsed();
        if held >= NOTICED {
            STALLS.with(|here| {
                if let Some(stalls) = here.get() {
                    stalls.observe(held.as_secs_f64());
                }
            });
        }
        polled
    })
}

/// Runs tasks on the current worker, and measures their steps.
#[derive(Clone, Copy)]
pub struct OnWorker;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for OnWorker {
    fn execute(&self, work: F) {
        // Without a runtime, the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(measured(work));
        }
    }
}

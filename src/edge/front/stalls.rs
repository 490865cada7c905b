//! The steps of work that hold a worker, recorded for each thread.

use std::cell::OnceCell;

use hyper::rt::Executor;
use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::Handle;

use crate::stalls;

thread_local! {
    /// Where the steps of this thread are recorded.
    static STALLS: OnceCell<Histogram> = const { OnceCell::new() };
}

/// Records the steps of this thread from now on.
pub(super) fn record_here(stalls: Histogram) {
    // Every thread does this once.
    STALLS.with(|here| _ = here.set(stalls));
}

/// Work whose steps are recorded.
pub fn measured<F: Future>(work: F) -> impl Future<Output = F::Output> {
    stalls::measured(work, |held| {
        STALLS.with(|here| {
            if let Some(stalls) = here.get() {
                stalls.observe(held.as_secs_f64());
            }
        });
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

//! Work that is finished even if its caller goes away.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::edge::front::measured;

/// Work that runs within the task that waits for it, which costs no wake-ups. If that task is cancelled, because the caller has
/// closed the connection, the rest runs in a task of its own.
pub struct Finish<F: Future<Output: Send> + Send + 'static> {
    work: Option<Pin<Box<F>>>,
    token: TaskTrackerToken,
}

impl<F: Future<Output: Send> + Send + 'static> Finish<F> {
    /// Work that the tracker waits for, wherever it runs.
    pub fn new(work: F, tracker: &TaskTracker) -> Self {
        Self { work: Some(Box::pin(work)), token: tracker.token() }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finish<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out, so that work that panics is not resumed when this is dropped.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Finish<F> {
    fn drop(&mut self) {
        // Without a runtime, the process is ending.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            let token = self.token.clone();
            runtime.spawn(measured(async move {
                work.await;
                drop(token);
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    /// Work in two steps, which goes on when it gets a message, and tells when it is done.
    fn work() -> (oneshot::Sender<()>, oneshot::Receiver<()>, impl Future<Output = ()> + Send) {
        let (proceed, proceeding) = oneshot::channel();
        let (done, finished) = oneshot::channel();
        let work = async move {
            proceeding.await.unwrap();
            done.send(()).unwrap();
        };
        (proceed, finished, work)
    }

    #[tokio::test]
    async fn work_whose_waiting_task_is_cancelled_is_finished_and_waited_for() {
        let tracker = TaskTracker::new();
        let (proceed, finished, work) = work();
        let waiting = tokio::spawn(Finish::new(work, &tracker));
        yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        tracker.close();
        assert!(timeout(Duration::from_millis(10), tracker.wait()).await.is_err(), "it is still at work");
        proceed.send(()).unwrap();
        tracker.wait().await;
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn work_that_panics_ends_with_its_task() {
        let tracker = TaskTracker::new();
        let waiting = tokio::spawn(Finish::new(async { panic!("a defect") }, &tracker));
        assert!(waiting.await.unwrap_err().is_panic());
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn work_that_is_not_cancelled_has_an_output() {
        let tracker = TaskTracker::new();
        let (proceed, _finished, work) = work();
        proceed.send(()).unwrap();
        Finish::new(work, &tracker).await;
        tracker.close();
        tracker.wait().await;
    }
}

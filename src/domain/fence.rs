//! The fence around writes: a process whose lease has expired, or that was suspended past its end, stops writing.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Until when this process may write. Clones share one state.
#[derive(Clone, Debug)]
pub struct Fence {
    origin: Instant,
    /// Milliseconds after `origin`.
    until: Arc<AtomicU64>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { origin: Instant::now(), until: Arc::default() }
    }
}

impl Fence {
    /// Whether this process may write now. Only the monotonic clock decides, so a task that hangs cannot keep it up.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.origin.elapsed() < Duration::from_millis(self.until.load(Ordering::Acquire))
    }

    /// Runs a write for as long as the fence holds; `None` when it does not. The fence is checked at every poll, so a process
    /// that was suspended does not continue a write after the lease has expired.
    pub async fn guard<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        let mut write = pin!(write);
        poll_fn(|context| if self.holds() { write.as_mut().poll(context).map(Some) } else { Poll::Ready(None) }).await
    }

    /// Lets the fence hold until this time.
    pub fn extend(&self, until: Instant) {
        let millis = until.saturating_duration_since(self.origin).as_millis();
        self.until.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Lets the fence fall immediately.
    pub fn fall(&self) {
        self.until.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_stops_when_the_fence_falls() {
        let fence = Fence::default();
        assert_eq!(fence.guard(async { 1 }).await, None, "the fence does not hold yet");
        fence.extend(Instant::now() + Duration::from_millis(40));
        assert_eq!(fence.guard(async { 1 }).await, Some(1));
        let slow = async {
            // As a process that is suspended past its lease and has one more step to do.
            std::thread::sleep(Duration::from_millis(60));
            tokio::task::yield_now().await;
        };
        assert_eq!(fence.guard(slow).await, None);
    }

    #[test]
    fn clones_fall_together() {
        let fence = Fence::default();
        let other = fence.clone();
        fence.extend(Instant::now() + Duration::from_secs(60));
        assert!(other.holds());
        other.fall();
        assert!(!fence.holds());
    }
}

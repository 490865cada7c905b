//! The fence around writes: a process that has lost its lease, or slept past it, writes nothing more.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Until when this process may write. Cheap to clone; all clones are one.
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
    /// Whether this process may write now. It stops by the clock alone, whatever else hangs or sleeps.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.origin.elapsed() < Duration::from_millis(self.until.load(Ordering::Acquire))
    }

    /// Runs a write for as long as the fence holds; `None` when it does not. It is looked at before every step of the
    /// write, so a process that wakes up too late does not go on where it stopped.
    pub async fn guard<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        let mut write = pin!(write);
        poll_fn(|context| if self.holds() { write.as_mut().poll(context).map(Some) } else { Poll::Ready(None) }).await
    }

    /// Lets it hold until then.
    pub fn extend(&self, until: Instant) {
        let millis = until.saturating_duration_since(self.origin).as_millis();
        self.until.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Lets it fall at once.
    pub fn fall(&self) {
        self.until.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_ends_with_the_fence() {
        let fence = Fence::default();
        assert_eq!(fence.guard(async { 1 }).await, None, "nothing is held yet");
        fence.extend(Instant::now() + Duration::from_millis(40));
        assert_eq!(fence.guard(async { 1 }).await, Some(1));
        let slow = async {
            // Asleep past the lease, as a stopped process is; then there is one more step to do.
            std::thread::sleep(Duration::from_millis(60));
            tokio::task::yield_now().await;
        };
        assert_eq!(fence.guard(slow).await, None);
    }

    #[test]
    fn a_fence_that_fell_stays_down_in_all_clones() {
        let fence = Fence::default();
        let other = fence.clone();
        fence.extend(Instant::now() + Duration::from_secs(60));
        assert!(other.holds());
        other.fall();
        assert!(!fence.holds());
    }
}

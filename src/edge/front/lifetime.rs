//! When a connection is closed: when it has been idle for too long, when the certificate of its peer ends, or when the edge stops.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a connection may be idle: without a request being worked on, so also with half a request head, or with an answer
/// that the peer does not read.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long what was accepted may take when the edge stops, or when a connection is closed.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a connection that is being closed may stay idle before it is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many requests of a connection are being worked on, and when that last changed.
struct IdleTimer(Mutex<(usize, Instant)>);

/// Keeps a connection from being idle while a request is worked on.
pub struct BusyGuard(Arc<IdleTimer>);

impl IdleTimer {
    fn change(&self, change: impl Fn(usize) -> usize) {
        let mut state = self.0.lock();
        *state = (change(state.0), Instant::now());
    }

    /// Waits until the connection has been idle for so long, counted from now at the earliest.
    async fn idle_for(&self, duration: Duration) {
        let mut until = Instant::now() + duration;
        loop {
            sleep_until(until).await;
            let (count, since) = *self.0.lock();
            let now = Instant::now();
            until = if count > 0 { now } else { since } + duration;
            if count == 0 && until <= now {
                return;
            }
        }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.change(|count| count - 1);
    }
}

/// When a connection must be closed. Clones belong to the same connection.
#[derive(Clone)]
pub struct Lifetime {
    idle: Arc<IdleTimer>,
    /// When the certificate of the peer ends.
    until: Option<Instant>,
    stop: watch::Receiver<bool>,
}

impl Lifetime {
    /// The lifetime of a connection that begins now and ends at the latest at this time, or when `stop` turns true.
    pub(super) fn new(stop: watch::Receiver<bool>, until: Option<Instant>) -> Self {
        Self { idle: Arc::new(IdleTimer(Mutex::new((0, Instant::now())))), until, stop }
    }

    /// Marks the beginning of a request; it ends when the guard is dropped.
    #[must_use]
    pub fn begin_request(&self) -> BusyGuard {
        self.idle.change(|count| count + 1);
        BusyGuard(self.idle.clone())
    }

    /// Waits until the connection has been idle for too long, the certificate of its peer ends, or the edge stops. Then the protocol
    /// closes it in its own way: it takes no further requests.
    pub async fn ended(&mut self) {
        let until = self.until;
        let expired = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.idle.idle_for(IDLE_TIMEOUT) => {}
            () = expired => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Waits until a connection that is being closed has been idle for too long, or the time for its requests is over; then it is
    /// dropped.
    pub async fn close_overdue(&self) {
        let _ = timeout(DRAIN_TIMEOUT, self.idle.idle_for(CLOSE_TIMEOUT)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_request_is_not_idle() {
        let (_stop, stopping) = watch::channel(false);
        let mut lifetime = Lifetime::new(stopping, None);
        let (began, request) = (Instant::now(), lifetime.begin_request());
        tokio::spawn(async move {
            sleep_until(began + Duration::from_secs(60)).await;
            drop(request);
        });
        lifetime.ended().await;
        assert_eq!(began.elapsed().as_secs(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_the_certificate_of_its_peer() {
        let (_stop, stopping) = watch::channel(false);
        let began = Instant::now();
        let mut lifetime = Lifetime::new(stopping, Some(began + Duration::from_secs(60)));
        let request = lifetime.begin_request();
        lifetime.ended().await;
        assert_eq!(began.elapsed().as_secs(), 60);
        lifetime.close_overdue().await;
        assert_eq!(began.elapsed().as_secs(), 85, "the request in progress has the time of a stop");
        drop(request);
    }
}

//! How often a target is tried, and what came of an attempt.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::TargetAttempts;
use crate::domain::invalid_field::InvalidField;
use crate::domain::schedule::duration;
use crate::edge::webhook::outcome::Reason;

/// The pause after the first attempt within the cluster; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How often a target is tried, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Maximum number of attempts.
    pub attempts: u32,
    /// The pause after the first attempt; it doubles each time.
    pub pause: Duration,
    /// The longest pause.
    pub max_pause: Duration,
}

/// The result of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it means for the delivery.
    pub reason: Reason,
    /// The HTTP status of the target, if it answered with one.
    pub status: Option<u16>,
    /// Whether the target may accept the same delivery later.
    pub is_retryable: bool,
}

impl Answer {
    /// An answer that another attempt would not change.
    #[must_use]
    pub fn permanent(reason: Reason, status: Option<u16>) -> Self {
        Self { reason, status, is_retryable: false }
    }

    /// No answer, which may be another one at the next attempt.
    #[must_use]
    pub fn retryable(reason: Reason) -> Self {
        Self { reason, status: None, is_retryable: true }
    }
}

/// Allows one log message per minute. It holds the minute of the last one, counted from 1970.
#[derive(Default)]
pub struct LogThrottle(AtomicI64);

impl LogThrottle {
    /// Whether a message may be logged now.
    pub fn is_due(&self) -> bool {
        let now = Timestamp::now().as_second() / 60;
        self.0.fetch_max(now, Ordering::Relaxed) < now
    }
}

impl RetryPolicy {
    /// Compiles the attempts in a spec; `field` is where they stand.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn compile(field: &str, attempts: &TargetAttempts) -> Result<Self, InvalidField> {
        let TargetAttempts { timeout, attempts } = attempts;
        let timeout = duration(&format!("{field}.timeout"), timeout.as_deref(), SignedDuration::from_secs(10))?;
        Ok(Self {
            timeout: timeout.unsigned_abs(),
            attempts: attempts.unwrap_or(3),
            pause: FIRST_PAUSE,
            max_pause: Duration::MAX,
        })
    }

    /// How long a delivery may take in total, including the pauses between attempts.
    #[must_use]
    pub fn max_duration(&self) -> Duration {
        self.timeout * self.attempts + self.pauses().take(self.attempts.saturating_sub(1) as usize).sum::<Duration>()
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> {
        let max = self.max_pause;
        std::iter::successors(Some(self.pause.min(max)), move |pause| Some(pause.saturating_mul(2).min(max)))
    }

    /// Attempts until the answer is not retryable, the attempts are used up, or the edge stops: a delivery that waited for its next
    /// attempt then would be lost.
    pub async fn run<F: Future<Output = Answer>>(
        &self,
        stopping: &CancellationToken,
        attempt: impl Fn() -> F,
    ) -> (Reason, Option<u16>) {
        let mut pauses = self.pauses().take(self.attempts.saturating_sub(1) as usize);
        loop {
            let none = Answer::retryable(Reason::TargetTimeout);
            let answer = timeout(self.timeout, attempt()).await.unwrap_or(none);
            let Some(pause) = pauses.next().filter(|_| answer.is_retryable) else {
                return (answer.reason, answer.status);
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = stopping.cancelled() => return (answer.reason, answer.status),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;

    fn policy(attempts: u32) -> RetryPolicy {
        let seconds = Duration::from_secs;
        RetryPolicy { timeout: seconds(1), attempts, pause: seconds(1), max_pause: seconds(4) }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_bound_and_attempts_end() {
        assert_eq!(policy(5).max_duration(), Duration::from_secs(5 + 1 + 2 + 4 + 4));
        let (count, began) = (AtomicU32::new(0), Instant::now());
        let attempt = || async {
            count.fetch_add(1, Ordering::Relaxed);
            Answer { reason: Reason::TargetRefused, status: Some(503), is_retryable: true }
        };
        let answer = policy(5).run(&CancellationToken::new(), attempt).await;
        assert_eq!((answer, count.into_inner()), ((Reason::TargetRefused, Some(503)), 5));
        assert_eq!(began.elapsed().as_secs(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_next_attempt_waits_no_longer_when_the_edge_stops() {
        let stopping = CancellationToken::new();
        let began = Instant::now();
        let stop = async {
            sleep(Duration::from_millis(500)).await;
            stopping.cancel();
        };
        let passing = || async { Answer::retryable(Reason::TargetUnreachable) };
        let ten = policy(10);
        let (answer, ()) = tokio::join!(ten.run(&stopping, passing), stop);
        assert_eq!((answer.0, began.elapsed().as_millis()), (Reason::TargetUnreachable, 500));
    }
}

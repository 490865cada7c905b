//! Brings a verified delivery to its target, with bounded attempts.

pub mod destination;
pub mod kafka;
pub mod object;
mod refusal;
pub mod service;
pub mod target;
pub mod template;
mod token;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::object::Objects;
use self::service::Post;
use self::target::Target;
use super::outcome::Why;
use super::replay::Identity;
use crate::api::TargetAttempts;
use crate::domain::schedule::duration;

/// The pause after the first attempt within the cluster; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// What a target gets.
pub struct Parcel {
    /// Headers of the caller that may travel on.
    pub headers: HeaderMap,
    /// What makes the delivery the same when it comes again.
    pub identity: Identity,
    /// The endpoint, as `namespace/name`.
    pub endpoint: String,
    /// ID of the delivery.
    pub delivery: String,
    /// What the edge knows of it, signed.
    pub assertion: String,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// The body as it came.
    pub body: Bytes,
}

/// How long and how often a target is tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often it is tried.
    pub attempts: u32,
    /// The pause after the first attempt; it doubles each time.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

/// What came of one attempt.
pub struct Answer {
    why: Why,
    /// What the target said, if it said anything.
    status: Option<u16>,
    /// Whether the target may take the same delivery in a moment.
    is_passing: bool,
}

impl Answer {
    /// An answer that another attempt would not change.
    pub fn last(why: Why, status: Option<u16>) -> Self {
        Self { why, status, is_passing: false }
    }
}

/// When a refusal was last explained, in minutes since 1970: once a minute is enough to be read, and not too much.
#[derive(Default)]
struct Explained(AtomicI64);

impl Explained {
    /// Whether it is time to explain one.
    fn is_due(&self) -> bool {
        let now = Timestamp::now().as_second() / 60;
        self.0.fetch_max(now, Ordering::Relaxed) < now
    }
}

impl Patience {
    /// Compiles what a spec says of it; `field` is where it stands.
    fn compile(field: &str, attempts: &TargetAttempts) -> Result<Self, String> {
        let TargetAttempts { timeout, attempts } = attempts;
        let timeout = duration(&format!("{field}.timeout"), timeout.as_deref(), SignedDuration::from_secs(10))?;
        Ok(Self {
            timeout: timeout.unsigned_abs(),
            attempts: attempts.unwrap_or(3),
            pause: PAUSE,
            longest_pause: Duration::MAX,
        })
    }

    /// How long a delivery may take in all, the pauses between attempts included.
    #[must_use]
    pub fn takes(&self) -> Duration {
        self.timeout * self.attempts + self.pauses().take(self.attempts.saturating_sub(1) as usize).sum::<Duration>()
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> {
        let longest = self.longest_pause;
        std::iter::successors(Some(self.pause.min(longest)), move |pause| Some(pause.saturating_mul(2).min(longest)))
    }

    /// Tries until the answer is final, or the edge stops: what waits for its next attempt then would be lost with it.
    pub async fn exhaust<F: Future<Output = Answer>>(
        &self,
        stopping: &CancellationToken,
        attempt: impl Fn() -> F,
    ) -> (Why, Option<u16>) {
        let mut pauses = self.pauses().take(self.attempts.saturating_sub(1) as usize);
        loop {
            let none = Answer { why: Why::TargetTimeout, status: None, is_passing: true };
            let answer = timeout(self.timeout, attempt()).await.unwrap_or(none);
            let Some(pause) = pauses.next().filter(|_| answer.is_passing) else {
                return (answer.why, answer.status);
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = stopping.cancelled() => return (answer.why, answer.status),
            }
        }
    }
}

/// The ways to all kinds of targets.
pub struct Targets {
    post: Post,
    objects: Objects,
    stopping: CancellationToken,
}

impl Targets {
    /// With a way to create objects, until the edge stops.
    #[must_use]
    pub fn new(objects: Objects, stopping: CancellationToken) -> Self {
        Self { post: Post::default(), objects, stopping }
    }

    /// Delivers, trying again while the target cannot be reached or says that it cannot do it now.
    pub async fn deliver(&self, target: &Target, parcel: &Parcel) -> (Why, Option<u16>) {
        let stopping = &self.stopping;
        match target {
            Target::Service(service) => service.patience.exhaust(stopping, || self.post.attempt(service, parcel)).await,
            Target::Object(object) => object.patience.exhaust(stopping, || self.objects.attempt(object, parcel)).await,
            Target::Kafka(kafka) => kafka.patience.exhaust(stopping, || kafka.attempt(parcel)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::Instant;

    use super::*;

    fn patience(attempts: u32) -> Patience {
        let seconds = Duration::from_secs;
        Patience { timeout: seconds(1), attempts, pause: seconds(1), longest_pause: seconds(4) }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_bound_and_attempts_end() {
        assert_eq!(patience(5).takes(), Duration::from_secs(5 + 1 + 2 + 4 + 4));
        let (count, began) = (AtomicU32::new(0), Instant::now());
        let attempt = || async {
            count.fetch_add(1, Ordering::Relaxed);
            Answer { why: Why::TargetRefused, status: Some(503), is_passing: true }
        };
        let answer = patience(5).exhaust(&CancellationToken::new(), attempt).await;
        assert_eq!((answer, count.into_inner()), ((Why::TargetRefused, Some(503)), 5));
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
        let passing = || async { Answer { why: Why::TargetUnreachable, status: None, is_passing: true } };
        let ten = patience(10);
        let (answer, ()) = tokio::join!(ten.exhaust(&stopping, passing), stop);
        assert_eq!((answer.0, began.elapsed().as_millis()), (Why::TargetUnreachable, 500));
    }
}

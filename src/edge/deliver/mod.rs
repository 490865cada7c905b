//! Brings a verified delivery to its target, with bounded attempts.

pub mod object;
mod refusal;
pub mod service;
pub mod template;
mod token;

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use jiff::SignedDuration;
use tokio::time::{sleep, timeout};

use self::object::Objects;
use self::service::Post;
use super::outcome::Why;
use super::replay::Identity;
use super::route::{Target, duration};

/// The pause after the first attempt; it doubles.
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
    /// SHA-256 of the body, in hexadecimal.
    pub body_sha256: String,
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
}

/// What came of one attempt.
struct Answer {
    why: Why,
    /// What the target said, if it said anything.
    status: Option<u16>,
    /// Whether the target may take the same delivery in a moment.
    is_passing: bool,
}

impl Answer {
    /// An answer that another attempt would not change.
    fn last(why: Why, status: Option<u16>) -> Self {
        Self { why, status, is_passing: false }
    }
}

impl Patience {
    /// Compiles what an endpoint says of it; `field` is where the timeout stands.
    fn compile(field: &str, timeout: Option<&str>, attempts: Option<u32>) -> Result<Self, String> {
        let timeout = duration(field, timeout, SignedDuration::from_secs(10))?;
        Ok(Self { timeout: timeout.unsigned_abs(), attempts: attempts.unwrap_or(3) })
    }

    /// How long a delivery may take in all, the pauses between attempts included.
    #[must_use]
    pub fn takes(&self) -> Duration {
        let pauses = PAUSE * (1 << self.attempts.saturating_sub(1).min(10));
        self.timeout * self.attempts + pauses
    }

    /// Tries until the answer is final.
    async fn exhaust<F: Future<Output = Answer>>(&self, attempt: impl Fn() -> F) -> (Why, Option<u16>) {
        let mut pause = PAUSE;
        let mut left = self.attempts;
        loop {
            let none = Answer { why: Why::TargetTimeout, status: None, is_passing: true };
            let answer = timeout(self.timeout, attempt()).await.unwrap_or(none);
            left = left.saturating_sub(1);
            if !answer.is_passing || left == 0 {
                return (answer.why, answer.status);
            }
            sleep(pause).await;
            pause *= 2;
        }
    }
}

/// The ways to all kinds of targets.
pub struct Targets {
    post: Post,
    objects: Objects,
}

impl Targets {
    /// With a way to create objects.
    #[must_use]
    pub fn new(objects: Objects) -> Self {
        Self { post: Post::default(), objects }
    }

    /// Delivers, trying again while the target cannot be reached or says that it cannot do it now.
    pub async fn deliver(&self, target: &Target, parcel: &Parcel) -> (Why, Option<u16>) {
        match target {
            Target::Service(service) => service.patience.exhaust(|| self.post.attempt(service, parcel)).await,
            Target::Object(object) => object.patience.exhaust(|| self.objects.attempt(object, parcel)).await,
        }
    }
}

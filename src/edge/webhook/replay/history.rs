//! The delivery history: which deliveries were accepted before.

use std::future::pending;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::error::ReserveError;
use super::identity::Identity;
use super::memory::Memory;
use super::redis::{Redis, WITHDRAWAL};
use crate::api::ReplayStore;

/// How long a reservation lasts beyond what the target may take, if it is neither confirmed nor released: the edge may have been
/// killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often a confirmation is tried, and the pause between: a delivery that its target accepted must not be new again because the
/// store was away for a moment.
const CONFIRM_ATTEMPTS: u32 = 10;
const CONFIRM_RETRY_DELAY: Duration = Duration::from_millis(400);

/// The memory keeps the upper half of a token, without its lowest bit: they differ in that.
const TOKEN_STEP: u64 = 1 << 33;

/// How many releases may wait for Redis to answer. Beyond that, reservations expire by themselves.
const MAX_RELEASES: usize = 1 << 14;
/// The pause between two attempts to release.
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(200);

/// A reserved delivery. Nobody else can reserve it until it is released or expires.
#[derive(Debug)]
pub struct Reservation {
    store: ReplayStore,
    namespace: Arc<str>,
    identity: Identity,
    /// Tells it from a later reservation of the same delivery.
    token: u64,
    /// When it expires.
    expires: Instant,
}

/// The delivery history, in memory and in Redis.
pub struct DeliveryHistory {
    /// The token of the next reservation. It begins at random, because other replicas reserve in the same Redis.
    next_token: AtomicU64,
    memory: Memory,
    redis: Option<Redis>,
    /// Reservations that Redis has to release as soon as it answers.
    releases: mpsc::Sender<Release>,
}

/// A reservation that has to be released in Redis.
struct Release {
    reservation: Reservation,
    /// Whether Redis has confirmed the reservation. If not, it may still be made.
    is_made: bool,
    /// Until when it is tried.
    until: Instant,
}

impl DeliveryHistory {
    /// An empty history, with a maximum number of deliveries in memory, and with a Redis if there is one. It releases what it could
    /// not release at once in a task of the current runtime.
    #[must_use]
    pub fn new(max_deliveries: usize, redis: Option<Redis>) -> Self {
        let next_token = RandomState::new().build_hasher().finish().into();
        let (releases, waiting) = mpsc::channel(MAX_RELEASES);
        if let Some(redis) = &redis {
            tokio::spawn(release_all(redis.clone(), waiting));
        }
        Self { next_token, memory: Memory::new(max_deliveries), redis, releases }
    }

    /// How much of the memory is used: 0 to 1.
    #[must_use]
    pub fn used(&self) -> f64 {
        self.memory.used()
    }

    /// Whether Redis evicts keys, which makes it of no use for a history.
    #[must_use]
    pub fn redis_evicts(&self) -> bool {
        self.redis.as_ref().is_some_and(Redis::evicts)
    }

    /// Looks from time to time whether Redis evicts keys, for ever.
    pub async fn watch_redis(&self) {
        match &self.redis {
            Some(redis) => redis.watch_eviction().await,
            None => pending().await,
        }
    }

    /// Reserves a delivery for as long as its target may take. If it is not certain whether it is reserved, it is released.
    ///
    /// # Errors
    /// When it is not new, or the store cannot say whether it is.
    pub async fn reserve(
        &self,
        store: ReplayStore,
        namespace: &Arc<str>,
        identity: Identity,
        max_duration: Duration,
    ) -> Result<Reservation, ReserveError> {
        let lasts = max_duration + GRACE;
        let token = self.next_token.fetch_add(TOKEN_STEP, Ordering::Relaxed);
        let expires = Instant::now() + lasts;
        let reservation = Reservation { store, namespace: namespace.clone(), identity, token, expires };
        match (store, &self.redis) {
            (ReplayStore::Memory, _) => self.memory.reserve(namespace, &identity, token, lasts, Instant::now())?,
            (ReplayStore::Redis, Some(redis)) if redis.evicts() => return Err(ReserveError::Evicts),
            (ReplayStore::Redis, Some(redis)) => {
                let Ok(reserved) = redis.reserve(&identity, token, lasts).await else {
                    self.release_later(Release {
                        until: reservation.expires + WITHDRAWAL,
                        reservation,
                        is_made: false,
                    });
                    return Err(ReserveError::Unavailable);
                };
                reserved?;
            }
            (ReplayStore::Redis, None) => return Err(ReserveError::Unavailable),
        }
        Ok(reservation)
    }

    /// Records an accepted delivery for the whole replay window.
    pub async fn confirm(&self, reservation: Reservation, window: Duration) {
        let Some(redis) = self.redis.as_ref().filter(|_| reservation.store == ReplayStore::Redis) else {
            return self.memory.confirm(&reservation.namespace, &reservation.identity, window, Instant::now());
        };
        for _ in 0..CONFIRM_ATTEMPTS {
            if redis.confirm(&reservation.identity, window).await {
                return;
            }
            sleep(CONFIRM_RETRY_DELAY).await;
        }
        tracing::error!("failed to record a delivery; a replay would be accepted");
    }

    /// Releases a delivery that its target did not accept.
    pub async fn release(&self, reservation: Reservation) {
        match self.redis.as_ref().filter(|_| reservation.store == ReplayStore::Redis) {
            Some(redis) => {
                if !redis.release(&reservation.identity, reservation.token).await {
                    self.release_later(Release { until: reservation.expires, reservation, is_made: true });
                }
            }
            None => {
                self.memory.release(&reservation.namespace, &reservation.identity, reservation.token, Instant::now());
            }
        }
    }

    fn release_later(&self, release: Release) {
        if self.releases.try_send(release).is_err() {
            tracing::warn!("too many reservations wait to be released; they expire by themselves");
        }
    }
}

/// Releases one reservation after the other, each until Redis has answered or the reservation has expired there.
async fn release_all(redis: Redis, mut waiting: mpsc::Receiver<Release>) {
    while let Some(Release { reservation: Reservation { identity, token, .. }, is_made, until }) = waiting.recv().await
    {
        while Instant::now() < until {
            let released =
                if is_made { redis.release(&identity, token).await } else { redis.withdraw(&identity, token).await };
            if released {
                break;
            }
            sleep(RELEASE_RETRY_DELAY).await;
        }
    }
}

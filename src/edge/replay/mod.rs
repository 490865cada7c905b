//! What was delivered before. A delivery is claimed after it was verified and before it goes to its target; the claim is
//! kept when the target took it, and given back when not, so that the sender's next attempt is not lost.

mod memory;
mod redis;

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::sleep;

use self::memory::Memory;
pub use self::redis::Redis;
use crate::api::ReplayStore;
use crate::contract::route::WebhookReference;

/// What makes a delivery the same when it comes again.
pub type Identity = [u8; 32];

/// What makes a delivery the same when it comes again: what identifies it within its webhook, and the webhook.
#[must_use]
pub fn identity(webhook: &WebhookReference, within: &[u8]) -> Identity {
    let text = [webhook.uid.as_bytes(), b"\0", within].concat();
    let mut identity = [0; 32];
    identity.copy_from_slice(digest(&SHA256, &text).as_ref());
    identity
}

/// How long a claim lasts that nobody keeps or gives back, beyond what the target may take: the edge may have been killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often keeping a claim is tried, and the pause between: a delivery that its target took must not be new again
/// because the store was away for a moment.
const TRIES: (u32, Duration) = (10, Duration::from_millis(400));

/// A claim on a delivery: nobody else's until it is kept or given back.
#[derive(Debug)]
pub struct Claim {
    store: ReplayStore,
    identity: Identity,
    /// Tells this claim from one that somebody else made after it had ended.
    token: u64,
}

/// Why a delivery could not be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotClaimed {
    /// It was delivered before, or is being delivered.
    Replayed,
    /// The store cannot say.
    Unavailable,
}

/// The replay memories of an edge.
pub struct Replays {
    memory: Memory,
    redis: Option<Redis>,
}

impl Replays {
    /// With room for so many deliveries in memory, and with a Redis, if there is one.
    #[must_use]
    pub fn new(deliveries: usize, redis: Option<Redis>) -> Self {
        Self { memory: Memory::new(deliveries), redis }
    }

    /// Claims a delivery for as long as its target may take.
    ///
    /// # Errors
    /// When it is not new, or nobody can say whether it is.
    pub async fn claim(&self, store: ReplayStore, identity: Identity, takes: Duration) -> Result<Claim, NotClaimed> {
        let lasts = takes + GRACE;
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| NotClaimed::Unavailable)?;
        let token = u64::from_le_bytes(random);
        match (store, &self.redis) {
            (ReplayStore::Memory, _) => self.memory.claim(&identity, token, lasts, Instant::now())?,
            (ReplayStore::Redis, Some(redis)) => redis.claim(&identity, token, lasts).await?,
            (ReplayStore::Redis, None) => return Err(NotClaimed::Unavailable),
        }
        Ok(Claim { store, identity, token })
    }

    /// Remembers a claimed delivery for the whole window.
    pub async fn keep(&self, claim: Claim, window: Duration) {
        let Some(redis) = self.redis.as_ref().filter(|_| claim.store == ReplayStore::Redis) else {
            return self.memory.keep(&claim.identity, window, Instant::now());
        };
        for _ in 0..TRIES.0 {
            if redis.keep(&claim.identity, window).await {
                return;
            }
            sleep(TRIES.1).await;
        }
        tracing::error!("a delivery could not be remembered; it would be accepted again");
    }

    /// Forgets a claimed delivery that its target did not take.
    pub async fn give_back(&self, claim: Claim) {
        match self.redis.as_ref().filter(|_| claim.store == ReplayStore::Redis) {
            Some(redis) => redis.give_back(&claim.identity, claim.token).await,
            None => self.memory.give_back(&claim.identity, claim.token, Instant::now()),
        }
    }
}

//! The delivery history of all replicas: one Redis or Valkey. Anything but a clear answer in time counts as a refusal.
//!
//! A key holds the token of the attempt that has the delivery, or [`DELIVERED`]. A command whose answer is lost may be executed
//! later, so a reservation that nobody knows about is withdrawn by its token: if it is there it is deleted, and if it comes later,
//! it finds the mark of the withdrawal and reserves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionAddr, ErrorKind, FromRedisValue, RedisError, Script};
use thiserror::Error;
use tokio::time::sleep;

use super::error::ReserveError;
use super::eviction;
use super::identity::Identity;

/// How long an answer and a connection may take: a caller waits for it.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// How long a withdrawal is known: longer than a command can be on its way.
pub(super) const WITHDRAWAL: Duration = Duration::from_secs(600);
/// Keys begin with this, so that one Redis may serve other purposes.
const PREFIX: &[u8] = b"credence:delivery:";
/// The value of a delivery that its target has accepted.
const DELIVERED: &str = "delivered";
/// The answer to a reservation that was made.
const RESERVED: &str = "reserved";
/// Reserves the first key for a token, unless it is taken, or the second one says that the token was withdrawn.
const RESERVE_SCRIPT: &str = "
local holder = redis.call('GET', KEYS[1])
if holder then return holder end
if redis.call('GET', KEYS[2]) then return 'withdrawn' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'reserved'";
/// Deletes the key if it still holds this token.
const RELEASE_SCRIPT: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
/// The same, and lets no reservation with this token happen later.
const WITHDRAW_SCRIPT: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[2], 1, 'PX', ARGV[2])
return 1";

/// The URL of Redis cannot be read. It is not repeated, since it holds a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is not a URL such as rediss://user:password@host:6379/0")]
pub struct InvalidRedisUrl;

/// Redis may have executed a command, or may do so later.
pub(super) struct AnswerLost;

/// A Redis that connects when it is needed, and again when the connection was lost.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    reserve: Script,
    release: Script,
    withdraw: Script,
    evicts: Arc<AtomicBool>,
}

impl Redis {
    /// A Redis at a URL: `redis://` or `rediss://`, with user and password in it. It need not be reachable yet.
    ///
    /// # Errors
    /// When the URL cannot be read. The message does not repeat it.
    pub fn new(url: &str) -> Result<Self, InvalidRedisUrl> {
        let invalid = |_: RedisError| InvalidRedisUrl;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_max_delay(MAX_RECONNECT_DELAY);
        let client = Client::open(url).map_err(invalid)?;
        if matches!(client.get_connection_info().addr(), ConnectionAddr::Tcp(..)) {
            tracing::warn!(
                "the connection to Redis is not encrypted: whoever can read it learns its password; use a rediss:// URL"
            );
        }
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(invalid)?;
        let [reserve, release, withdraw] = [RESERVE_SCRIPT, RELEASE_SCRIPT, WITHDRAW_SCRIPT].map(Script::new);
        Ok(Self { connection, reserve, release, withdraw, evicts: Arc::default() })
    }

    /// Whether it evicts keys, as far as is known.
    pub(super) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// Looks from time to time whether it evicts keys, for ever. While it does not say, it is used as before.
    pub(super) async fn watch_eviction(&self) {
        let mut says = true;
        loop {
            let asked = redis::cmd("INFO").arg("memory").query_async::<String>(&mut self.connection.clone()).await;
            let evicts = asked.ok().and_then(|text| eviction::evicts(&text));
            match evicts {
                Some(evicts) => self.set_evicts(evicts),
                None if says => tracing::warn!("Redis does not say whether it evicts keys; check its maxmemory-policy"),
                None => {}
            }
            says = evicts.is_some();
            sleep(eviction::INTERVAL).await;
        }
    }

    fn set_evicts(&self, evicts: bool) {
        match (self.evicts.swap(evicts, Ordering::Relaxed), evicts) {
            (false, true) => {
                tracing::error!("Redis evicts keys, so replays could be new again; set maxmemory-policy to noeviction");
            }
            (true, false) => tracing::info!("Redis evicts no keys any more"),
            _ => {}
        }
    }

    /// Reserves a delivery.
    ///
    /// # Errors
    /// When the answer is lost: the delivery may be reserved nevertheless, or be later.
    pub(super) async fn reserve(
        &self,
        identity: &Identity,
        token: u64,
        lasts: Duration,
    ) -> Result<Result<(), ReserveError>, AnswerLost> {
        let (key, withdrawn) = (key(identity), withdrawal(token));
        match self.run::<String>(&self.reserve, &[&key, &withdrawn], token, lasts).await.as_deref() {
            Ok(RESERVED) => Ok(Ok(())),
            Ok(DELIVERED) => Ok(Err(ReserveError::Replayed)),
            Ok(_) => Ok(Err(ReserveError::InProgress)),
            Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => Ok(Err(ReserveError::Unavailable)),
            Err(_) => Err(AnswerLost),
        }
    }

    /// Returns whether it is recorded.
    pub(super) async fn confirm(&self, identity: &Identity, window: Duration) -> bool {
        let mut set = redis::cmd("SET");
        set.arg(key(identity)).arg(DELIVERED).arg("PX").arg(milliseconds(window));
        logged(set.query_async::<String>(&mut self.connection.clone()).await).is_ok()
    }

    /// Releases a reservation. Returns whether that is certain.
    pub(super) async fn release(&self, identity: &Identity, token: u64) -> bool {
        self.run::<i64>(&self.release, &[&key(identity)], token, Duration::ZERO).await.is_ok()
    }

    /// Takes a reservation back that may have been made, or may still be. Returns whether that is certain.
    pub(super) async fn withdraw(&self, identity: &Identity, token: u64) -> bool {
        self.run::<i64>(&self.withdraw, &[&key(identity), &withdrawal(token)], token, WITHDRAWAL).await.is_ok()
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&[u8]],
        token: u64,
        lasts: Duration,
    ) -> Result<T, RedisError> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(*key);
        }
        invocation.arg(token).arg(milliseconds(lasts));
        logged(invocation.invoke_async(&mut self.connection.clone()).await)
    }
}

/// Logs the category of an error and not its text, in which a server can repeat the password that it was sent.
fn logged<T>(answer: Result<T, RedisError>) -> Result<T, RedisError> {
    answer.inspect_err(|error| tracing::warn!(error = error.category(), "the replay store did not answer"))
}

fn key(identity: &Identity) -> Vec<u8> {
    [PREFIX, identity].concat()
}

/// The key that marks a token as withdrawn. It is shorter than that of any delivery.
fn withdrawal(token: u64) -> Vec<u8> {
    [PREFIX, &token.to_be_bytes()].concat()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! The delivery history of all replicas: one Redis or Valkey. Anything but a clear answer in time counts as a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionAddr, RedisError, Script};
use thiserror::Error;
use tokio::time::sleep;

use super::error::ReserveError;
use super::eviction;
use super::identity::Identity;
use crate::domain::text::foreign;

/// How long an answer and a connection may take: a caller waits for it.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// Keys begin with this, so that one Redis may serve other purposes.
const PREFIX: &[u8] = b"credence:delivery:";
/// Deletes the key if it still holds this token.
const RELEASE_SCRIPT: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// The URL of Redis cannot be read. It is not repeated, since it holds a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is not a URL such as rediss://user:password@host:6379/0")]
pub struct InvalidRedisUrl;

// The log has the category of an error and not its text, in which a server can repeat the password that it was sent.

/// A Redis that connects when it is needed, and again when the connection was lost.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    release: Script,
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
        Ok(Self { connection, release: Script::new(RELEASE_SCRIPT), evicts: Arc::default() })
    }

    /// Whether it evicts keys, as far as is known.
    pub(super) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// Looks from time to time whether it evicts keys, for ever.
    pub(super) async fn watch_eviction(&self) {
        loop {
            let asked = redis::cmd("INFO").arg("memory").query_async::<String>(&mut self.connection.clone()).await;
            match asked.map(|text| eviction::evicts(&text)) {
                Ok(Some(evicts)) => self.set_evicts(evicts),
                Ok(None) => tracing::warn!("Redis does not say whether it evicts keys; check its maxmemory-policy"),
                Err(error) => tracing::debug!(error = %foreign(&error), "failed to ask Redis whether it evicts keys"),
            }
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

    pub(super) async fn reserve(&self, identity: &Identity, token: u64, lasts: Duration) -> Result<(), ReserveError> {
        let mut set = redis::cmd("SET");
        set.arg(key(identity)).arg(token).arg("NX").arg("PX").arg(milliseconds(lasts));
        match self.ask(set.query_async::<Option<String>>(&mut self.connection.clone())).await {
            Some(Some(_)) => Ok(()),
            Some(None) => Err(ReserveError::Replayed),
            None => Err(ReserveError::Unavailable),
        }
    }

    /// Returns whether it is recorded.
    pub(super) async fn confirm(&self, identity: &Identity, window: Duration) -> bool {
        let mut set = redis::cmd("SET");
        set.arg(key(identity)).arg("delivered").arg("PX").arg(milliseconds(window));
        self.ask(set.query_async::<String>(&mut self.connection.clone())).await.is_some()
    }

    pub(super) async fn release(&self, identity: &Identity, token: u64) {
        let mut invocation = self.release.key(key(identity));
        let released = invocation.arg(token).invoke_async::<i64>(&mut self.connection.clone()).await;
        if let Err(error) = released {
            // The reservation expires by itself soon.
            tracing::warn!(error = error.category(), "failed to release a delivery");
        }
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        match question.await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(error = error.category(), "the replay store did not answer");
                None
            }
        }
    }
}

fn key(identity: &Identity) -> Vec<u8> {
    [PREFIX, identity].concat()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

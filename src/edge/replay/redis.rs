//! The replay memory of several edges: one Redis or Valkey. Whatever it does not answer clearly and in time counts as a refusal.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};

use super::{Identity, NotClaimed};

/// How long an answer and a connection may take: a caller waits for it.
const ANSWER: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to connect.
const PAUSE: Duration = Duration::from_secs(1);
/// Keys begin with this, so that one Redis may serve other purposes.
const PREFIX: &[u8] = b"credence:delivery:";
/// Takes away what still holds this token.
const GIVE_BACK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// A Redis that connects when it is needed, and again when it was lost.
#[derive(Clone)]
pub struct Redis {
    connection: ConnectionManager,
    give_back: Script,
}

impl Redis {
    /// A Redis at a URL: `redis://` or `rediss://`, with user and password in it. It need not be up.
    ///
    /// # Errors
    /// When the URL cannot be read. The message does not repeat it.
    pub fn new(url: &str) -> Result<Self, String> {
        let wrong = |_: RedisError| "it is not a URL such as rediss://user:password@host:6379/0".to_owned();
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(ANSWER))
            .set_connection_timeout(Some(CONNECT))
            .set_max_delay(PAUSE);
        let client = Client::open(url).map_err(wrong)?;
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        Ok(Self { connection, give_back: Script::new(GIVE_BACK) })
    }

    pub(super) async fn claim(&self, identity: &Identity, token: u64, lasts: Duration) -> Result<(), NotClaimed> {
        let mut set = redis::cmd("SET");
        set.arg(key(identity)).arg(token).arg("NX").arg("PX").arg(milliseconds(lasts));
        match self.ask(set.query_async::<Option<String>>(&mut self.connection.clone())).await {
            Some(Some(_)) => Ok(()),
            Some(None) => Err(NotClaimed::Replayed),
            None => Err(NotClaimed::Unavailable),
        }
    }

    /// Says whether it is remembered.
    pub(super) async fn keep(&self, identity: &Identity, window: Duration) -> bool {
        let mut set = redis::cmd("SET");
        set.arg(key(identity)).arg("delivered").arg("PX").arg(milliseconds(window));
        self.ask(set.query_async::<String>(&mut self.connection.clone())).await.is_some()
    }

    pub(super) async fn give_back(&self, identity: &Identity, token: u64) {
        let mut invocation = self.give_back.key(key(identity));
        let asked = invocation.arg(token).invoke_async::<i64>(&mut self.connection.clone()).await;
        if let Err(error) = asked {
            // The claim ends by itself soon.
            tracing::warn!(%error, "a claim could not be given back");
        }
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        match question.await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(%error, "the replay store does not answer");
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

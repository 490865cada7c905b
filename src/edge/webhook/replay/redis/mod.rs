//! The delivery history of all replicas: one Redis or Valkey. Anything but a clear answer in time counts as a refusal.
//!
//! A key holds the token of the attempt that has the delivery, or [`DELIVERED`]. A command whose answer is lost may be executed
//! later, so a reservation that nobody knows about is withdrawn by its token: if it is there it is deleted, and if it comes later,
//! it finds the mark of the withdrawal and reserves nothing.

mod connection;
pub mod replies;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{ErrorKind, FromRedisValue, RedisError};
use tokio::time::sleep;

use self::connection::Connection;
pub use self::connection::InvalidRedisUrl;
use super::error::ReserveError;
use super::eviction;
use super::identity::Identity;
use crate::domain::address_policy::AddressPolicy;

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

/// Redis may have executed a command, or may do so later.
pub(super) struct AnswerLost;

/// A Redis that connects when it is needed, and again when the connection was lost.
#[derive(Clone)]
pub struct Redis {
    connection: Connection,
    evicts: Arc<AtomicBool>,
}

impl Redis {
    /// A Redis at a URL: `redis://` or `rediss://`, with user and password in it. It need not be reachable yet. `addresses` are
    /// those that it may have.
    ///
    /// # Errors
    /// When the URL cannot be used. The message does not repeat it.
    pub fn new(url: &str, addresses: &AddressPolicy) -> Result<Self, InvalidRedisUrl> {
        Ok(Self { connection: Connection::new(url, addresses)?, evicts: Arc::default() })
    }

    /// Whether it evicts keys, as far as is known.
    pub(super) fn evicts(&self) -> bool {
        self.evicts.load(Ordering::Relaxed)
    }

    /// Looks from time to time whether it evicts keys, for ever. While it does not say, it is used as before.
    pub(super) async fn watch_eviction(&self) {
        let mut says = true;
        loop {
            let asked = self.connection.query::<String>(redis::cmd("INFO").arg("memory")).await;
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
        match self.run::<String>(RESERVE_SCRIPT, &[&key, &withdrawn], token, lasts).await.as_deref() {
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
        logged(self.connection.query::<String>(&set).await).is_ok()
    }

    /// Releases a reservation. Returns whether that is certain.
    pub(super) async fn release(&self, identity: &Identity, token: u64) -> bool {
        self.run::<i64>(RELEASE_SCRIPT, &[&key(identity)], token, Duration::ZERO).await.is_ok()
    }

    /// Takes a reservation back that may have been made, or may still be. Returns whether that is certain.
    pub(super) async fn withdraw(&self, identity: &Identity, token: u64) -> bool {
        self.run::<i64>(WITHDRAW_SCRIPT, &[&key(identity), &withdrawal(token)], token, WITHDRAWAL).await.is_ok()
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &str,
        keys: &[&[u8]],
        token: u64,
        lasts: Duration,
    ) -> Result<T, RedisError> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(script).arg(keys.len()).arg(keys).arg(token).arg(milliseconds(lasts));
        logged(self.connection.query(&eval).await)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    const IDENTITY: Identity = [7; 32];

    /// What becomes of a reservation; `None` when the answer is lost.
    async fn reserve(redis: &Redis, token: u64) -> Option<Result<(), ReserveError>> {
        redis.reserve(&IDENTITY, token, Duration::from_secs(60)).await.ok()
    }

    fn own_machine() -> AddressPolicy {
        AddressPolicy::trusted(Some("127.0.0.1".parse().unwrap()))
    }

    /// A server that answers the commands of a new connection well, and then each command with the next of these replies.
    async fn server(replies: &'static [&'static [u8]]) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/0", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            let next = Arc::new(AtomicUsize::new(0));
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let next = next.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        let text = String::from_utf8_lossy(&buffer).into_owned();
                        let setup = text.matches("SETINFO").count();
                        buffer = [0; 4096];
                        if setup > 0 {
                            stream.write_all("+OK\r\n".repeat(setup).as_bytes()).await.unwrap();
                        } else {
                            let reply = replies[next.fetch_add(1, Ordering::Relaxed).min(replies.len() - 1)];
                            let _ = stream.write_all(reply).await;
                        }
                    }
                });
            }
        });
        (url, connections)
    }

    #[tokio::test]
    async fn replies_that_nobody_asked_for_are_refusals_and_pass() {
        let (url, connections) = server(&[
            b"$99999999999\r\nxxxx",
            b"*2147483647\r\n",
            b"*1\r\n*1\r\n*1\r\n",
            b"nonsense",
            b"$2\r\nO",
            b"+reserved\r\n",
        ])
        .await;
        let redis = Redis::new(&url, &own_machine()).unwrap();
        for _ in 0..5 {
            assert_eq!(reserve(&redis, 1).await, None);
        }
        assert_eq!(reserve(&redis, 1).await, Some(Ok(())));
        assert_eq!(reserve(&redis, 1).await, Some(Ok(())));
        assert_eq!(connections.load(Ordering::Relaxed), 6, "each of them has ended its connection");
    }

    #[tokio::test]
    async fn an_address_that_is_refused_sees_no_connection() {
        let (url, connections) = server(&[b"+OK\r\n"]).await;
        for url in [url.as_str(), "redis://169.254.169.254/", "redis://localhost:1/"] {
            let redis = Redis::new(url, &AddressPolicy::trusted(None)).unwrap();
            assert_eq!(reserve(&redis, 1).await, None);
        }
        assert_eq!(connections.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_failure_to_connect_is_the_answer_to_all_who_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = Redis::new(&format!("redis://{}", listener.local_addr().unwrap()), &own_machine()).unwrap();
        let began = Instant::now();
        let waiting = (0..20).map(|token| reserve(&redis, token));
        for answer in futures::future::join_all(waiting).await {
            assert_eq!(answer, None);
        }
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[test]
    fn a_url_that_cannot_be_used_is_not_repeated() {
        for url in ["http://user:secret@host", "unix:///secret", "rediss://host:6379/#insecure", "secret"] {
            let refused = Redis::new(url, &AddressPolicy::trusted(None)).err().unwrap();
            assert!(!refused.to_string().contains("secret"));
        }
        assert!(Redis::new("rediss://user:secret@host:6379/0", &AddressPolicy::trusted(None)).is_ok());
    }
}

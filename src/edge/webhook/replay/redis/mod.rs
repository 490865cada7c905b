//! The delivery history of all replicas: one Redis or Valkey. Anything but a clear answer in time counts as a refusal.

mod connection;
mod replies;

use std::time::Duration;

use redis::RedisError;

use self::connection::Connection;
pub use self::connection::InvalidRedisUrl;
use super::error::ReserveError;
use super::identity::Identity;
use crate::domain::address_policy::AddressPolicy;
use crate::domain::text::excerpt;

/// Keys begin with this, so that one Redis may serve other purposes.
const PREFIX: &[u8] = b"credence:delivery:";
/// Deletes the key if it still holds this token.
const RELEASE_SCRIPT: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// A Redis that connects when it is needed, and again when the connection was lost.
#[derive(Clone)]
pub struct Redis {
    connection: Connection,
}

impl Redis {
    /// A Redis at a URL: `redis://` or `rediss://`, with user and password in it. It need not be reachable yet. `addresses` are
    /// those that it may have.
    ///
    /// # Errors
    /// When the URL cannot be read. The message does not repeat it.
    pub fn new(url: &str, addresses: &AddressPolicy) -> Result<Self, InvalidRedisUrl> {
        Ok(Self { connection: Connection::new(url, addresses)? })
    }

    pub(super) async fn reserve(&self, identity: &Identity, token: u64, lasts: Duration) -> Result<(), ReserveError> {
        let mut set = redis::cmd("SET");
        set.arg(key(identity)).arg(token).arg("NX").arg("PX").arg(milliseconds(lasts));
        match self.connection.query::<Option<String>>(&set).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(ReserveError::Replayed),
            Err(error) => {
                log(&error);
                Err(ReserveError::Unavailable)
            }
        }
    }

    /// Returns whether it is recorded.
    pub(super) async fn confirm(&self, identity: &Identity, window: Duration) -> bool {
        let mut set = redis::cmd("SET");
        set.arg(key(identity)).arg("delivered").arg("PX").arg(milliseconds(window));
        let confirmed = self.connection.query::<String>(&set).await;
        confirmed.inspect_err(log).is_ok()
    }

    pub(super) async fn release(&self, identity: &Identity, token: u64) {
        let mut eval = redis::cmd("EVAL");
        eval.arg(RELEASE_SCRIPT).arg(1).arg(key(identity)).arg(token);
        let released = self.connection.query::<i64>(&eval).await;
        if let Err(error) = released {
            // The reservation expires by itself soon.
            tracing::warn!(error = excerpt(&error.to_string()), "failed to release a delivery");
        }
    }
}

fn log(error: &RedisError) {
    tracing::warn!(error = excerpt(&error.to_string()), "the replay store did not answer");
}

fn key(identity: &Identity) -> Vec<u8> {
    [PREFIX, identity].concat()
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
    const MINUTE: Duration = Duration::from_secs(60);

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
            b"+OK\r\n",
        ])
        .await;
        let redis = Redis::new(&url, &own_machine()).unwrap();
        for _ in 0..5 {
            assert_eq!(redis.reserve(&IDENTITY, 1, MINUTE).await, Err(ReserveError::Unavailable));
        }
        assert_eq!(redis.reserve(&IDENTITY, 1, MINUTE).await, Ok(()));
        assert_eq!(redis.reserve(&IDENTITY, 1, MINUTE).await, Ok(()));
        assert_eq!(connections.load(Ordering::Relaxed), 6, "each of them has ended its connection");
    }

    #[tokio::test]
    async fn an_address_that_is_refused_sees_no_connection() {
        let (url, connections) = server(&[b"+OK\r\n"]).await;
        for url in [url.as_str(), "redis://169.254.169.254/", "redis://localhost:1/"] {
            let redis = Redis::new(url, &AddressPolicy::trusted(None)).unwrap();
            assert_eq!(redis.reserve(&IDENTITY, 1, MINUTE).await, Err(ReserveError::Unavailable));
        }
        assert_eq!(connections.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_failure_to_connect_is_the_answer_to_all_who_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = Redis::new(&format!("redis://{}", listener.local_addr().unwrap()), &own_machine()).unwrap();
        let began = Instant::now();
        let waiting = (0..20).map(|token| redis.reserve(&IDENTITY, token, MINUTE));
        for answer in futures::future::join_all(waiting).await {
            assert_eq!(answer, Err(ReserveError::Unavailable));
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

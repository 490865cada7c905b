//! Connections to Services, kept open between deliveries: a pool for one worker, whose connections are driven on that worker's thread.
//!
//! The pool of a client library is made for all threads and all protocols, and took as long for a delivery as the request itself.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::domain::address_policy::AddressPolicy;
use crate::domain::text::foreign;
use crate::network::bounded::Bounded;
use crate::network::http::{PolicyResolver, connector};

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request has no answer.
pub type SendError = Box<dyn Error + Send + Sync>;

/// A connection to one target, for one request at a time.
type Connection = SendRequest<Full<Bytes>>;

/// The connections of one worker.
pub struct Connections {
    connector: HttpConnector<PolicyResolver>,
    idle: Arc<Idle>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { connector: connector(AddressPolicy::trusted(None)), idle: Arc::default() }
    }
}

impl Connections {
    /// Sends a request to the host and port of a URL, on an idle connection or else on a new one. The body of the answer is not
    /// read.
    ///
    /// # Errors
    /// When there is no connection, or it ended before the answer.
    pub async fn send(&self, url: &Uri, mut request: Request<Full<Bytes>>) -> Result<StatusCode, SendError> {
        loop {
            let mut connection = match self.idle.take(url) {
                Some(connection) => connection,
                None => self.connect(url).await?,
            };
            match connection.try_send_request(request).await {
                Ok(answer) => {
                    let status = answer.status();
                    // The connection is free once nobody reads the body any more.
                    drop(answer);
                    self.idle.keep(url, connection);
                    return Ok(status);
                }
                // The target had closed the connection before any of the request was sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
    }

    async fn connect(&self, url: &Uri) -> Result<Connection, SendError> {
        let stream = self.connector.clone().oneshot(url.clone()).await?;
        let stream = TokioIo::new(Bounded::new(stream.into_inner()));
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %foreign(error), "connection to a target failed");
            }
        });
        Ok(sender)
    }
}

/// Idle connections by host and port, the last used one last.
#[derive(Default)]
struct Idle(Mutex<HashMap<String, Vec<(Connection, Instant)>>>);

impl Idle {
    /// Takes the connection that was used last, of those that are still open.
    fn take(&self, url: &Uri) -> Option<Connection> {
        let mut idle = self.0.lock();
        let connections = idle.get_mut(url.authority()?.as_str())?;
        std::iter::from_fn(|| connections.pop()).map(|(connection, _)| connection).find(|open| !open.is_closed())
    }

    fn keep(self: &Arc<Self>, url: &Uri, connection: Connection) {
        let Some(authority) = url.authority() else { return };
        let mut idle = self.0.lock();
        if idle.is_empty() {
            tokio::spawn(expire(Arc::downgrade(self)));
        }
        let entry = (connection, Instant::now());
        match idle.get_mut(authority.as_str()) {
            Some(connections) => connections.push(entry),
            None => _ = idle.insert(authority.as_str().to_owned(), vec![entry]),
        }
    }

    /// Closes connections that have been idle for too long. Returns whether any are left.
    fn sweep(&self) -> bool {
        let mut idle = self.0.lock();
        idle.retain(|_, connections| {
            connections.retain(|(connection, since)| !connection.is_closed() && since.elapsed() < IDLE_TIMEOUT);
            !connections.is_empty()
        });
        !idle.is_empty()
    }
}

/// Sweeps for as long as there are idle connections.
async fn expire(idle: Weak<Idle>) {
    loop {
        sleep(IDLE_TIMEOUT / 4).await;
        if !idle.upgrade().is_some_and(|idle| idle.sweep()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use http_body_util::Empty;
    use hyper::server;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time;

    use super::*;

    /// A target that counts its connections, and closes each one after an answer if it is not to be kept.
    async fn target(keep: bool) -> (Uri, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, count) = (url(listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let answer = |_| async {
                        Ok::<_, Infallible>(Response::builder().status(204).body(Empty::<Bytes>::new()).unwrap())
                    };
                    let mut builder = server::conn::http1::Builder::new();
                    builder.keep_alive(keep).serve_connection(TokioIo::new(stream), service_fn(answer)).await
                });
            }
        });
        (url, count)
    }

    fn url(address: SocketAddr) -> Uri {
        format!("http://{address}").parse().unwrap()
    }

    async fn send(connections: &Connections, url: &Uri) -> Result<StatusCode, SendError> {
        connections.send(url, Request::post("/").header("host", "a").body(Full::default()).unwrap()).await
    }

    #[tokio::test]
    async fn a_connection_is_used_again() {
        let ((url, count), connections) = (target(true).await, Connections::default());
        for _ in 0..5 {
            assert_eq!(send(&connections, &url).await.unwrap(), 204);
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let both = tokio::join!(send(&connections, &url), send(&connections, &url));
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!(count.load(Ordering::Relaxed), 2, "requests at the same time have connections of their own");
    }

    #[tokio::test]
    async fn a_connection_that_the_target_has_closed_is_replaced() {
        let ((url, count), connections) = (target(false).await, Connections::default());
        for _ in 0..5 {
            assert_eq!(send(&connections, &url).await.unwrap(), 204);
        }
        assert_eq!(count.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn a_request_that_may_have_arrived_is_not_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, connections) = (url(listener.local_addr().unwrap()), Connections::default());
        let target = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
        };
        let (sent, ()) = tokio::join!(send(&connections, &url), target);
        assert!(sent.is_err());
    }

    #[tokio::test]
    async fn interim_responses_are_skipped_but_not_without_end() {
        const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        for (count, is_answered) in [(10, true), (usize::MAX, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (url, connections) = (url(listener.local_addr().unwrap()), Connections::default());
            let target = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_u8().await.unwrap();
                let mut sent = 0;
                for _ in 0..count {
                    if stream.write_all(INTERIM.as_bytes()).await.is_err() {
                        return sent;
                    }
                    sent += INTERIM.len();
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                sent
            };
            let (answer, sent) = tokio::join!(send(&connections, &url), target);
            assert_eq!(answer.is_ok_and(|status| status == 200), is_answered);
            assert!(sent < 32 << 20, "more than fits into the buffers of both sides was read: {sent}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_idle_for_too_long_is_closed() {
        let ((url, count), connections) = (target(true).await, Connections::default());
        send(&connections, &url).await.unwrap();
        time::pause();
        time::advance(IDLE_TIMEOUT / 2).await;
        assert!(connections.idle.sweep(), "it is still young");
        time::advance(IDLE_TIMEOUT).await;
        assert!(!connections.idle.sweep());
        time::resume();
        send(&connections, &url).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}

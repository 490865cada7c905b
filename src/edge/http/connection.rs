//! HTTP/1.1 and HTTP/2 on a connection of the front.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;

use super::caller::Caller;
use super::framing::Strict;
use super::service::{RequestError, Service};
use crate::domain::text::foreign;
use crate::edge::front::{Connection, Lifetime, OnWorker, Protocol};

/// What a handshake calls HTTP/2. Everything else that it settles is HTTP/1.1.
const HTTP2: &[u8] = b"h2";
/// Largest request head, in bytes, and how many headers it may have.
const MAX_HEAD: u32 = 32 << 10;
const MAX_HEADERS: usize = 100;
/// How many requests one HTTP/2 connection may have at the same time.
const MAX_STREAMS: u32 = 64;
/// How often an HTTP/2 connection is asked whether its peer is still there, and how long the peer may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A service as a protocol of the front.
pub struct Http<S>(Arc<S>);

impl<S: Service> Http<S> {
    /// Serves this service over HTTP.
    #[must_use]
    pub fn new(service: Arc<S>) -> Arc<Self> {
        Arc::new(Self(service))
    }
}

impl<S: Service> Protocol for Http<S> {
    const ALPN: &'static [&'static [u8]] = &[HTTP2, b"http/1.1"];

    async fn serve(self: Arc<Self>, mut connection: Connection) {
        let caller = Arc::new(Caller::of(&mut connection));
        let is_http2 = connection.alpn() == Some(HTTP2);
        let Connection { stream, lifetime, .. } = connection;
        let service = {
            let (service, caller, lifetime) = (self.0.clone(), caller.clone(), lifetime.clone());
            service_fn(move |request| {
                let (service, caller, busy) = (service.clone(), caller.clone(), lifetime.begin_request());
                async move {
                    // An idle connection has no room for a request in it.
                    let answer = Box::pin(service.call(caller, request)).await;
                    drop(busy);
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        let ended = if is_http2 {
            drive(http2().serve_connection(TokioIo::new(stream), service), lifetime).await
        } else {
            drive(http1().serve_connection(TokioIo::new(Strict::new(stream)), service), lifetime).await
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %caller.address, error = %foreign(&error), "connection failed");
            // Hyper has answered such a request without asking the service.
            if error.is_parse() {
                let too_large = error.is_parse_too_large();
                let reason = if too_large { RequestError::HeadTooLarge } else { RequestError::Malformed };
                self.0.clone().head_refused(&caller, reason);
            }
        }
    }

    fn stop(&self) {
        self.0.stop();
    }

    async fn finished(&self) {
        self.0.finished().await;
    }
}

/// Drives a connection until it ends by itself, or its lifetime does: then it is closed as the protocol wants it.
async fn drive<C>(connection: C, mut lifetime: Lifetime) -> Result<(), hyper::Error>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = &mut connection => return ended,
        () = lifetime.ended() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = lifetime.close_overdue() => Ok(()),
    }
}

/// It needs no timer: a connection on which a head takes too long is idle.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD as usize).max_headers(MAX_HEADERS).half_close(false);
    builder
}

fn http2() -> http2::Builder<OnWorker> {
    let mut builder = http2::Builder::new(OnWorker);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

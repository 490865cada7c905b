//! The accept loop: everything that a caller can hold on to before it has said anything is bounded here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::Edge;
use super::framing::Strict;
use super::handle::{OnRecord, handle};
use super::outcome::Why;
use super::source::Caller;
use super::tls;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be without a request in hand: with half a head, with an answer that it does not read, or idle.
const HEAD: Duration = Duration::from_secs(20);
/// How long a connection that is being closed may be so.
const PARTING: Duration = Duration::from_secs(1);
/// Largest request head, in bytes, and how many headers it may have.
const HEAD_SIZE: u32 = 32 << 10;
const HEADERS: usize = 100;
/// How many requests one HTTP/2 connection may have at once.
const STREAMS: u32 = 64;
/// How long a shutdown waits for what was accepted.
pub const FAREWELL: Duration = Duration::from_secs(25);
/// How long the loop rests when there are no more file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// What a connection is doing: how many of its requests are in hand, and when that last changed.
struct Quiet(Mutex<(usize, Instant)>);

/// A request in hand.
struct InHand(Arc<Quiet>);

impl Quiet {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((0, Instant::now()))))
    }

    fn begin(self: &Arc<Self>) -> InHand {
        self.change(|count| count + 1);
        InHand(self.clone())
    }

    fn change(&self, change: impl Fn(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (change(state.0), Instant::now());
    }

    /// Waits until no request was in hand for so long, counted from now at the earliest.
    async fn lasts(&self, duration: Duration) {
        let mut until = Instant::now() + duration;
        loop {
            sleep_until(until).await;
            let (count, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            until = if count > 0 { now } else { since } + duration;
            if count == 0 && until <= now {
                return;
            }
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.change(|count| count - 1);
    }
}

/// Serves until `stop` turns true and what was accepted is finished.
pub async fn serve(edge: Arc<Edge>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(EXHAUSTED).await;
                continue;
            }
        };
        let Some(place) = edge.room.connection(peer.ip().to_canonical()) else {
            edge.metrics.turned_away();
            continue;
        };
        let (edge, stop) = (edge.clone(), stop.clone());
        connections.spawn(async move {
            if let Some((stream, caller)) = greet(&edge, stream, peer).await {
                converse(edge, stream, Arc::new(caller), stop).await;
            }
            drop(place);
        });
    }
    drop(listener);
    edge.stopping.cancel();
    let finished = async {
        connections.close();
        connections.wait().await;
        edge.work.close();
        edge.work.wait().await;
    };
    if timeout(FAREWELL, finished).await.is_err() {
        tracing::warn!("some deliveries did not finish in time; their senders will try again");
    }
}

/// Speaks the protocol that the handshake settled, until either side has had enough.
async fn converse(edge: Arc<Edge>, stream: Stream, caller: Arc<Caller>, stop: watch::Receiver<bool>) {
    let quiet = Quiet::new();
    let service = {
        let (edge, caller, quiet) = (edge.clone(), caller.clone(), quiet.clone());
        service_fn(move |request| {
            let (edge, caller, in_hand) = (edge.clone(), caller.clone(), quiet.begin());
            async move {
                let answer = handle(edge, caller, request).await;
                drop(in_hand);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let ended = if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2) {
        hold(http2().serve_connection(TokioIo::new(stream), service), &quiet, stop).await
    } else {
        hold(http1().serve_connection(TokioIo::new(Strict::new(stream)), service), &quiet, stop).await
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %caller.address, %error, "a connection ended badly");
        // Answered already, and known to nobody else.
        if error.is_parse() {
            let why = if error.is_parse_too_large() { Why::HeadTooLarge } else { Why::Malformed };
            OnRecord::begin(edge, &caller).ends(why);
        }
    }
}

/// Drives a connection until it ends, has nothing to do for too long, or the edge stops.
async fn hold<C>(connection: C, quiet: &Quiet, mut stop: watch::Receiver<bool>) -> Result<(), hyper::Error>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = quiet.lasts(HEAD) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = quiet.lasts(PARTING) => Ok(()),
    }
}

/// It needs no timer: a head that takes too long is a connection with nothing to do.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_SIZE as usize).max_headers(HEADERS).half_close(false);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_SIZE)
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HANDSHAKE);
    builder
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

/// The handshake, and who the caller is.
async fn greet(edge: &Edge, stream: TcpStream, peer: SocketAddr) -> Option<(Stream, Caller)> {
    let config = edge.credentials.tls.load_full()?;
    // Small answers must not wait for each other.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await else {
        edge.metrics.handshake_failed();
        return None;
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(tls::names);
    Some((stream, Caller { address: peer.ip().to_canonical(), certificate }))
}

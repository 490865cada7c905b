//! The accept loop: everything that a caller can hold on to before it has said anything is bounded here.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Edge;
use super::handle::handle;
use super::source::Caller;
use super::tls;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be without a complete request head, idle ones included.
const HEAD: Duration = Duration::from_secs(20);
/// Largest request head, in bytes, and how many headers it may have.
const HEAD_SIZE: u32 = 32 << 10;
const HEADERS: usize = 100;
/// How many requests one HTTP/2 connection may have at once.
const STREAMS: u32 = 64;
/// How many connections there may be, and how many from one address.
const CONNECTIONS: usize = 20_000;
const CONNECTIONS_PER_ADDRESS: usize = 12_000;
/// How long a shutdown waits for what was accepted.
const FAREWELL: Duration = Duration::from_secs(25);
/// How long the loop rests when there are no more file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// How many connections each address has.
#[derive(Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// A place among the connections of an address.
struct Place(Arc<Addresses>, IpAddr);

impl Addresses {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = addresses.entry(address).or_insert(0);
        if *count >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = addresses.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.1);
            }
        }
    }
}

/// Serves until `stop` turns true and what was accepted is finished.
pub async fn serve(edge: Arc<Edge>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let builder = Arc::new(protocol());
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Arc::new(Addresses::default());
    let graceful = Arc::new(GracefulShutdown::new());
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
        let places = connections.clone().try_acquire_owned().ok().zip(addresses.enter(peer.ip()));
        let Some(places) = places else {
            edge.metrics.turned_away();
            continue;
        };
        let (edge, builder, watcher) = (edge.clone(), builder.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Some((stream, caller)) = greet(&edge, stream, peer).await {
                let caller = Arc::new(caller);
                let service = service_fn(move |request| {
                    let (edge, caller) = (edge.clone(), caller.clone());
                    async move { Ok::<_, std::convert::Infallible>(handle(edge, caller, request).await) }
                });
                let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%peer, error, "a connection ended badly");
                }
            }
            drop(places);
        });
    }
    drop(listener);
    if let Ok(graceful) = Arc::try_unwrap(graceful).map_err(|_| ()) {
        let finished = async {
            graceful.shutdown().await;
            edge.work.close();
            edge.work.wait().await;
        };
        if timeout(FAREWELL, finished).await.is_err() {
            tracing::warn!("some deliveries did not finish in time; their senders will try again");
        }
    }
}

fn protocol() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_SIZE as usize)
        .max_headers(HEADERS)
        .half_close(false);
    builder
        .http2()
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

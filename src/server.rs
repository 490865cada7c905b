//! The HTTP server for health and metrics of the operator or the edge: `/healthz`, `/readyz`, `/metrics`.
//!
//! Whoever reaches the port can open connections: there are few at once, of which the oldest is closed for a new one, and each has
//! to send its requests soon.
//!
//! `/readyz` has the form of the API server: `?verbose` lists every part, `/readyz/<part>` reports one.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::{StatusCode, header};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::kubernetes::health::{Health, Stage};
use crate::stalls::elsewhere;

/// Maximum number of connections at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a request head may take, counted from the answer before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last.
const MAX_LIFETIME: Duration = Duration::from_secs(300);
/// How long the accept loop waits after an error, such as when there are no more file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

type Answer = (StatusCode, String);

/// Serves until `stop` becomes true.
///
/// # Errors
/// When the process cannot listen on the address.
pub async fn serve(
    address: SocketAddr,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
    health: Arc<Health>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let for_part = health.clone();
    let readiness = move |RawQuery(query): RawQuery| {
        let verbose = query.is_some_and(|query| query.split('&').any(|it| it.starts_with("verbose")));
        async move { ready(&health, verbose) }
    };
    let part = move |Path(part): Path<String>| async move { ready_part(&for_part, &part) };
    let exposition = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/readyz/{part}", get(part))
        // What is counted object by object takes long.
        .route("/metrics", get(move || async move { (exposition, elsewhere(metrics).await) }));
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    let mut connections = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                make_room(&mut connections).push_back(tokio::spawn(serve_connection(stream, router.clone())));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection for health and metrics; retrying");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Closes the oldest connection when there is no place for another one. A probe or a scrape is over soon, so under an attack it is
/// mostly the attacker's.
fn make_room(connections: &mut VecDeque<JoinHandle<()>>) -> &mut VecDeque<JoinHandle<()>> {
    if connections.len() >= MAX_CONNECTIONS {
        connections.retain(|connection| !connection.is_finished());
    }
    if connections.len() >= MAX_CONNECTIONS
        && let Some(oldest) = connections.pop_front()
    {
        oldest.abort();
    }
    connections
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let service = service_fn(move |request| router.clone().oneshot(request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(MAX_LIFETIME, connection).await {
        tracing::debug!(%error, "connection for health and metrics failed");
    }
}

/// The stage of the process, after the parts that fail, or all parts if `verbose`.
fn ready(health: &Health, verbose: bool) -> Answer {
    let (stage, parts) = health.report(Instant::now());
    let fails = stage == Stage::Starting || parts.iter().any(|(_, problem)| problem.is_some());
    let mut text = String::new();
    for (part, problem) in parts.iter().filter(|(_, problem)| verbose || problem.is_some()) {
        // Writing to a String cannot fail.
        let _ = match problem {
            None => writeln!(text, "[+]{part} ok"),
            Some(problem) => writeln!(text, "[-]{part} {problem}"),
        };
    }
    text.push_str(match stage {
        Stage::StandingBy => "standing by\n",
        Stage::Starting => "starting\n",
        Stage::Working => "working\n",
    });
    (if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, text)
}

fn ready_part(health: &Health, part: &str) -> Answer {
    let (_, parts) = health.report(Instant::now());
    match parts.into_iter().find(|(name, _)| *name == part) {
        None => (StatusCode::NOT_FOUND, format!("there is no part {part}; /readyz?verbose lists all parts\n")),
        Some((_, None)) => (StatusCode::OK, "ok\n".to_owned()),
        Some((_, Some(problem))) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
    }
}

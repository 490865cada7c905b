//! The HTTP server for those who run a process, operator or edge: `/healthz`, `/readyz`, `/metrics`.
//!
//! `/readyz` follows the API server: `?verbose` tells of every part, `/readyz/<part>` of one.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::kubernetes::health::{Health, Stage};

type Answer = (StatusCode, String);

/// Serves until `stop` turns true.
///
/// # Errors
/// When the address cannot be bound.
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
        .route("/metrics", get(move || async move { (exposition, metrics()) }));
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    axum::serve(listener, router).with_graceful_shutdown(async move { _ = stop.wait_for(|stop| *stop).await }).await
}

/// The state of the whole; of every part when asked to be verbose, or when one of them fails.
fn ready(health: &Health, verbose: bool) -> Answer {
    let (stage, parts) = health.report(Instant::now());
    let fails = stage == Stage::Starting || parts.iter().any(|(_, wrong)| wrong.is_some());
    let mut text = String::new();
    for (part, wrong) in parts.iter().filter(|(_, wrong)| verbose || wrong.is_some()) {
        // Writing to a String cannot fail.
        let _ = match wrong {
            None => writeln!(text, "[+]{part} ok"),
            Some(wrong) => writeln!(text, "[-]{part} {wrong}"),
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
        None => (StatusCode::NOT_FOUND, format!("there is no part {part} at work\n")),
        Some((_, None)) => (StatusCode::OK, "ok\n".to_owned()),
        Some((_, Some(wrong))) => (StatusCode::SERVICE_UNAVAILABLE, format!("{wrong}\n")),
    }
}

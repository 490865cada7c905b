//! The HTTP server for health and metrics of the operator or the edge: `/healthz`, `/readyz`, `/metrics`.
//!
//! `/readyz` has the form of the API server: `?verbose` lists every part, `/readyz/<part>` reports one.

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
        .route("/metrics", get(move || async move { (exposition, metrics()) }));
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    axum::serve(listener, router).with_graceful_shutdown(async move { _ = stop.wait_for(|stop| *stop).await }).await
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

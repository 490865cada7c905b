//! The operator's own HTTP server: `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// How far this process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has not listed everything yet.
    Starting,
    /// Another process holds the lease; this one takes over when that one is gone.
    StandingBy,
    /// The controllers are at work.
    Working,
}

/// Serves until `stop` turns true.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    readiness: watch::Receiver<Readiness>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let readiness = move || {
        let answer = match *readiness.borrow() {
            Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Readiness::StandingBy => (StatusCode::OK, "standing by\n"),
            Readiness::Working => (StatusCode::OK, "working\n"),
        };
        async move { answer }
    };
    let exposition = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/metrics", get(move || async move { (exposition, metrics.render()) }));
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    axum::serve(listener, router).with_graceful_shutdown(async move { _ = stop.wait_for(|stop| *stop).await }).await
}

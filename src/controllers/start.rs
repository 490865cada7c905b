//! Starts and stops everything: watches first, then the kinds that others depend on, then all controllers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use kube::Client;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::registration::register;
use super::registry::{Registry, StopSignal, Wakers};
use super::settings::Settings;
use super::shared::name_records::NameRecords;
use super::shared::origin::records_since;
use super::shared::parts::Parts;
use super::shared::signal::{Signal, Signals};
use super::watches::Watches;
use super::webhook::sweep;
use crate::domain::fence::Fence;
use crate::kubernetes::error::Error;
use crate::kubernetes::health::{Health, Stage};
use crate::kubernetes::watch::{Interruptions, Listing};
use crate::metrics::Metrics;

/// How long trust domains and brokers may take before the other controllers start without them.
const CACHE_WARMUP: Duration = Duration::from_secs(10);
/// How soon the records are read again when that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How often the wall clock is compared with the monotonic clock, and by how much they may differ.
const CLOCK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// After object-by-object gauges were counted, they are not counted again for this many times as long as it took: frequent
/// scrapes must not keep the operator busy with its own metrics.
const METRICS_BACKOFF: u32 = 20;

/// Runs all controllers until `stop` turns true and the work in hand is done. `health` follows: it is at work once
/// everything that exists has been listed.
pub async fn run(
    client: Client,
    fence: Fence,
    settings: Settings,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    mut stop: StopSignal,
) {
    let wakers = Wakers::default();
    let signals = wakers.signals();
    let mut beginning = read_beginning(&client, &settings.namespace).await;
    while let Err(error) = beginning {
        tracing::error!(%error, "cannot read the records of the operator; retrying");
        if timeout(RETRY, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
        beginning = read_beginning(&client, &settings.namespace).await;
    }
    let Ok(beginning) = beginning else { return };
    tracing::info!(streamed = beginning.0 == Listing::Streamed, "listing all objects");
    let parts = Parts::new(client, fence, settings, metrics.clone(), signals.clone(), beginning);
    let mut registry = Registry::new(parts.clone(), wakers, health.clone());
    register(&mut registry);
    let registry = Arc::new(registry);
    health.enter(Stage::Starting);
    refresh_gauges(&metrics, &registry);
    let count = Arc::new(move |part| metrics.interrupted(part));
    let interruptions = Interruptions { count, health: health.clone() };
    let mut watches = Watches::start(&parts, interruptions.clone(), health.clone());
    registry.watch(&interruptions, watches.tasks());
    tokio::join!(registry.listed(), watches.listed());
    tracing::info!("all caches synced");

    // Identities need authorities and policies need brokers: otherwise every restart would report both as missing, and
    // write that to their statuses.
    if timeout(CACHE_WARMUP, registry.warm_up()).await.is_err() {
        tracing::warn!("timed out waiting for trust domains and brokers; starting the remaining controllers");
    }
    while let Err(error) = parts.token_calls.sweep().await {
        tracing::warn!(%error, "the calls of identities that are gone could not be dropped; retrying");
        if timeout(RETRY, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
    let running = registry.run(&stop);
    health.enter(Stage::Working);
    tokio::select! {
        () = running => {}
        _ = watches.tasks().join_next() => tracing::error!("a watch ended; the operator stops"),
        () = watch_wall_clock(&signals) => {}
        () = sweep::sweep_forever(&parts) => {}
    }
    health.enter(Stage::Starting);
}

/// How objects are listed, since when records are kept, and who holds which names.
async fn read_beginning(client: &Client, namespace: &str) -> Result<(Listing, Timestamp, NameRecords), Error> {
    let (listing, since) = (Listing::supported(client).await?, records_since(client, namespace).await?);
    Ok((listing, since, NameRecords::load(client.clone(), namespace).await?))
}

/// Brings all gauges up to date whenever the metrics are read.
fn refresh_gauges(metrics: &Metrics, registry: &Arc<Registry>) {
    let (registry, next_count) = (Arc::downgrade(registry), Mutex::new(Instant::now()));
    metrics.refresh_with(move |metrics| {
        let Some(registry) = registry.upgrade() else { return };
        registry.measure(metrics);
        let (mut next_count, began) = (next_count.lock(), Instant::now());
        if began >= *next_count {
            registry.count(metrics, Timestamp::now());
            *next_count = Instant::now() + began.elapsed() * METRICS_BACKOFF;
        }
    });
}

/// Requeues all objects when the wall clock is set: what waits for a time of day would otherwise wait for the old one.
async fn watch_wall_clock(signals: &Signals) {
    let mut seen = (Instant::now(), SystemTime::now());
    loop {
        sleep(CLOCK.0).await;
        let now = (Instant::now(), SystemTime::now());
        let passed = now.0 - seen.0;
        let expected = seen.1 + passed;
        let off = now.1.duration_since(expected).unwrap_or_else(|error| error.duration());
        if off > CLOCK.1 {
            tracing::warn!(seconds = off.as_secs(), "wall clock jumped; requeueing all objects");
            signals.emit(Signal::ClockSet);
        }
        seen = now;
    }
}

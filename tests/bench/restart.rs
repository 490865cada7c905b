//! A restart of the operator in a cluster where nothing is left to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::api::ListParams;

use crate::Bench;
use crate::bed::Bed;
use crate::load::{count, float};
use crate::measure::{Probe, age, ask, wait_until_idle};
use crate::watch::TIMEOUT;

const KINDS: [&str; 3] = ["ServiceIdentity", "TopicPolicy", "Secret"];

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let before = versions(&bench.bed).await?;
    wait_until_idle(&bench.bed).await?;
    bench.bed.part("stop", "operator");
    let bed = Bed::open().await;
    let start = tokio::task::spawn_blocking(move || bed.part("start", "operator"));
    let working = working(&bench.bed).await?;
    start.await.map_err(|error| format!("the operator could not be started: {error}"))?;
    // The process has a new PID.
    bench.bed = Bed::open().await;
    let Bench { bed, report, .. } = bench;
    // From the age of the process, so that both times are from one clock.
    let began = Instant::now().checked_sub(Duration::from_secs_f64(age(bed))).unwrap_or(working);
    let done = wait_until_idle(bed).await?;
    let cost = Probe::zero().end_now(bed).await?;
    let after = versions(bed).await?;
    let changed = before.iter().filter(|(name, version)| after.get(*name) != Some(*version)).count();
    let new = after.keys().filter(|name| !before.contains_key(*name)).count();
    for kind in KINDS {
        report.add(format!("objects of kind {kind}"), count(bed, kind).await, "");
    }
    report.add("working after", (working - began).as_secs_f64(), "s");
    report.add("nothing left to do after", (done - began).as_secs_f64(), "s");
    report.add("API writes", cost.writes(), "");
    report.add("objects that changed", float(changed + new), "");
    for request in ["CreateAcls", "DeleteAcls"].iter().filter(|_| !cost.broker.is_empty()) {
        report.add(format!("Kafka requests: {request}"), cost.broker.get(*request).copied().unwrap_or(0.0), "");
    }
    report.add("CPU of the operator", cost.cpu, "s");
    report.add("peak memory", cost.peak, "MiB");
    Ok(())
}

/// Waits until the operator is working, and returns when.
async fn working(bed: &Bed) -> Result<Instant, String> {
    let began = Instant::now();
    loop {
        let answer = ask(bed, "/readyz").await;
        if answer.as_deref().map(str::trim) == Ok("working") {
            return Ok(Instant::now());
        }
        if began.elapsed() > TIMEOUT {
            return Err(format!("the operator is not working; its last response was {answer:?}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The resource version of every object that the operator may write.
async fn versions(bed: &Bed) -> Result<HashMap<String, String>, String> {
    let mut versions = HashMap::new();
    for kind in KINDS {
        let mut page = ListParams::default().limit(500);
        loop {
            let found = bed.api(kind, None).list_metadata(&page).await.map_err(|error| error.to_string())?;
            for object in found.items {
                let metadata = object.metadata;
                let namespace = metadata.namespace.unwrap_or_default();
                let name = format!("{kind} {namespace}/{}", metadata.name.unwrap_or_default());
                versions.insert(name, metadata.resource_version.unwrap_or_default());
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(versions)
}

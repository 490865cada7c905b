//! Many identities: created at once, idle, and renewed at once.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use crate::Bench;
use crate::bed::manifest;
use crate::load::{self, Burst, count, create, float, namespaces, spread};
use crate::measure::{Probe, wait_until_idle};
use crate::report::grouped;
use crate::watch::Watch;

pub async fn burst(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let objects = load::identities(&spread(bed, "burst").await?, 0..sizes.burst, &[]);
    let mut watch = Watch::open(bed, "ServiceIdentity", None).await;
    let probe = Probe::begin(bed).await?;
    let burst = Burst::run(bed, &mut watch, "identities", objects).await?;
    let cost = probe.end(bed).await?;
    report.add("identities Ready", burst.rate(), "/s");
    report.add("machine at work", burst.busy, "%");
    cost.add_to(report, "identity", sizes.burst);
    Ok(())
}

pub async fn idle(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    wait_until_idle(bed).await?;
    let identities = count(bed, "ServiceIdentity").await;
    let probe = Probe::begin(bed).await?;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(sizes.idle)).await;
    let cost = probe.end_now(bed).await?;
    report.add("identities", identities, "");
    report.add("observed", began.elapsed().as_secs_f64(), "s");
    report.add("API writes", cost.writes(), "");
    report.add("CPU of the operator", cost.cpu, "s");
    Ok(())
}

pub async fn rotation(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let all = sizes.certificates;
    let namespace = namespaces(bed, "rotation", 1).await?;
    let mut watch = Watch::open(bed, "ServiceIdentity", Some(&namespace[0])).await;
    let before = Burst::run(bed, &mut watch, "identities", load::identities(&namespace, 0..all, &[])).await?.observed;
    wait_until_idle(bed).await?;
    // issuedBefore has a resolution of one second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let policy = json!({
        "targets": [{"kind": "ServiceIdentity"}],
        "maxConcurrent": 100,
        "issuedBefore": Timestamp::now().strftime("%FT%TZ").to_string(),
    });
    let probe = Probe::begin(bed).await?;
    let began = Instant::now();
    create(bed, manifest("RotationPolicy", Some(&namespace[0]), "rotate", policy)).await?;
    let what = format!("{} new certificates", grouped(all));
    let renewed = watch
        .until(&what, before.keys().cloned(), |key, seen| seen.is_ready() && seen.content != before[key].content)
        .await?;
    let last = renewed.values().map(|seen| seen.at).max().unwrap_or(began);
    let cost = probe.end(bed).await?;
    let seconds = (last - began).as_secs_f64();
    report.add("all certificates new, 100 at a time", seconds, "s");
    report.add("certificates renewed", float(all) / seconds, "/s");
    cost.add_to(report, "certificate", all);
    Ok(())
}

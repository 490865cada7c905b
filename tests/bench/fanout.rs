//! A trust bundle that changes in many namespaces.

use std::time::Instant;

use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::json;

use crate::Bench;
use crate::bed::{Bed, openssl, self_signed, with};
use crate::load::{LABEL, create, float, namespaces};
use crate::measure::{Probe, wait_until_idle};
use crate::report::grouped;
use crate::watch::Watch;

const DOMAIN: &str = "bench-fanout";

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let all = sizes.namespaces;
    let namespaces = namespaces(bed, "fanout", all).await?;
    let map = format!("{DOMAIN}-trust-bundle");
    let only = watcher::Config::default().fields(&format!("metadata.name={map}"));
    let mut watch = Watch::open_with(bed, "ConfigMap", None, only).await;
    let keys = || namespaces.iter().map(|namespace| (namespace.clone(), map.clone()));
    let selector = json!({"namespaceSelector": {"matchLabels": {LABEL: "fanout"}}});
    let domain = with(self_signed(DOMAIN), "/metadata/labels", json!({LABEL: "fanout"}));
    create(bed, with(domain, "/spec/bundle", selector)).await?;
    watch.until(&format!("{} bundles", grouped(all)), keys(), |_, seen| !seen.content.is_empty()).await?;
    wait_until_idle(bed).await?;

    let root = new_root(bed);
    let change = json!({"spec": {"bundle": {"additionalRoots": [&root]}}});
    let body = root.lines().nth(1).unwrap();
    let probe = Probe::begin(bed).await?;
    let began = Instant::now();
    let domains = bed.api("TrustDomain", None);
    let answer = domains.patch(DOMAIN, &PatchParams::default(), &Patch::Merge(&change)).await;
    answer.map_err(|error| format!("the TrustDomain {DOMAIN} could not be changed: {error}"))?;
    let what = format!("{} changed bundles", grouped(all));
    let changed = watch.until(&what, keys(), |_, seen| seen.content.contains(body)).await?;
    let last = changed.values().map(|seen| seen.at).max().unwrap_or(began);
    let cost = probe.end(bed).await?;
    let seconds = (last - began).as_secs_f64();
    report.add("every bundle changed", seconds, "s");
    report.add("bundles changed", float(all) / seconds, "/s");
    cost.add_to(report, "namespace", all);
    Ok(())
}

fn new_root(bed: &Bed) -> String {
    let file = format!("{}/bench-root.pem", bed.env("BED_DIR"));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null"];
    openssl(&[&["req", "-x509", "-subj", "/CN=bench", "-days", "30", "-out", &file][..], &key].concat());
    std::fs::read_to_string(file).unwrap()
}

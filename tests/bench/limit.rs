//! The limit of the bed: server-side applies by one client, without the operator.

use std::time::Instant;

use k8s_openapi::ByteString;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::Bench;
use crate::load::{concurrently, float, namespaces};

/// Size of a Secret in bytes, about as much as a certificate, its key and a bundle.
const BYTES: usize = 2048;

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let count = bench.sizes.applies;
    // Each Secret is created once and changed twice.
    let names = count.div_ceil(3);
    let namespace = namespaces(&bench.bed, "limit", 1).await?.remove(0);
    let secrets = bench.bed.api("Secret", Some(&namespace));
    let params = PatchParams::apply("bench").force();
    let began = Instant::now();
    concurrently(0..count, async |number| {
        let name = format!("secret-{}", number % names);
        let content = ByteString(format!("{number:0>BYTES$}").into_bytes());
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "data": {"content": content},
        });
        let answer = secrets.patch(&name, &params, &Patch::Apply(manifest)).await;
        answer.map(drop).map_err(|error| format!("the Secret {name} could not be applied: {error}"))
    })
    .await?;
    let rate = float(count) / began.elapsed().as_secs_f64();
    bench.report.limit("server-side applies of a Secret of 2 KiB, 64 in flight", rate);
    Ok(())
}

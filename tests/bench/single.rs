//! How long one object takes: alone, and in the middle of a burst that is somebody else's.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::Bench;
use crate::bed::{Bed, identity, policy};
use crate::load::{self, Burst, create, key, namespaces, spread};
use crate::measure::quiet;
use crate::watch::{Key, Watch};

/// Between two measurements in a burst. They do not wait for each other, since then the slow ones would be few.
const PACE: Duration = Duration::from_millis(100);

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let others = spread(bed, "others").await?;
    let namespace = namespaces(bed, "single", 1).await?.remove(0);
    let mut singles = Singles::new(bed, namespace, sizes.repetitions).await?;
    for number in 0..sizes.repetitions {
        singles.new_identity(number).await?;
        singles.seen().await?;
        singles.changed_policy(number).await?;
        singles.seen().await?;
    }
    let (identities, policies) = singles.latencies();
    report.spread("new identity", identities, "ms");
    report.spread("changed policy", policies, "ms");

    quiet(bed).await?;
    let mut watch = Watch::open(bed, "ServiceIdentity", None).await;
    let burst_is_on = Cell::new(true);
    let burst = async {
        let objects = load::identities(&others, 0..sizes.burst, &[]);
        let burst = Burst::run(bed, &mut watch, "identities of others", objects).await;
        burst_is_on.set(false);
        burst
    };
    let amid = async {
        for number in sizes.repetitions..2 * sizes.repetitions {
            tokio::time::sleep(PACE).await;
            if !burst_is_on.get() {
                break;
            }
            singles.new_identity(number).await?;
            singles.changed_policy(number).await?;
        }
        singles.seen().await
    };
    tokio::try_join!(burst, amid)?;
    let (identities, policies) = singles.latencies();
    report.spread("new identity in a burst", identities, "ms");
    report.spread("changed policy in a burst", policies, "ms");
    Ok(())
}

/// What was asked for, and how long it took to come about.
struct Asked {
    watch: Watch,
    /// When, and for which generation.
    open: HashMap<Key, (Instant, i64)>,
    latencies: Vec<f64>,
}

impl Asked {
    async fn new(bed: &Bed, kind: &'static str, namespace: &str) -> Self {
        let watch = Watch::open(bed, kind, Some(namespace)).await;
        Self { watch, open: HashMap::new(), latencies: Vec::new() }
    }

    async fn seen(&mut self, what: &str) -> Result<(), String> {
        let open = std::mem::take(&mut self.open);
        let seen = self.watch.until(what, open.keys().cloned(), |key, sight| sight.ready >= Some(open[key].1)).await?;
        let latency = |(key, sight): (&Key, &crate::watch::Sight)| 1000.0 * (sight.at - open[key].0).as_secs_f64();
        self.latencies.extend(seen.iter().map(latency));
        Ok(())
    }
}

struct Singles<'a> {
    bed: &'a Bed,
    namespace: String,
    prepared: usize,
    identities: Asked,
    policies: Asked,
}

impl<'a> Singles<'a> {
    /// With policies to change.
    async fn new(bed: &'a Bed, namespace: String, prepared: usize) -> Result<Self, String> {
        let identities = Asked::new(bed, "ServiceIdentity", &namespace).await;
        let mut policies = Asked::new(bed, "TopicPolicy", &namespace).await;
        create(bed, identity(&namespace, "reader", &["kafka"])).await?;
        let manifests = (0..prepared)
            .map(|number| policy(&namespace, &topic(number), &format!("sandbox.bench.{number}"), grants(number)))
            .collect();
        Burst::run(bed, &mut policies.watch, "policies", manifests).await?;
        quiet(bed).await?;
        Ok(Self { bed, namespace, prepared, identities, policies })
    }

    async fn new_identity(&mut self, number: usize) -> Result<(), String> {
        let manifest = identity(&self.namespace, &format!("service-{number}"), &[]);
        self.identities.open.insert(key(&manifest), (Instant::now(), 1));
        create(self.bed, manifest).await
    }

    async fn changed_policy(&mut self, number: usize) -> Result<(), String> {
        let name = topic(number % self.prepared);
        let change = json!({"spec": {"grants": grants(number + self.prepared)}});
        let began = Instant::now();
        let policies = self.bed.api("TopicPolicy", Some(&self.namespace));
        let answer = policies.patch(&name, &PatchParams::default(), &Patch::Merge(&change)).await;
        let changed = answer.map_err(|error| format!("the TopicPolicy {name} cannot be changed: {error}"))?;
        self.policies.open.insert((self.namespace.clone(), name), (began, changed.metadata.generation.unwrap_or(0)));
        Ok(())
    }

    async fn seen(&mut self) -> Result<(), String> {
        self.identities.seen("new identities").await?;
        self.policies.seen("changed policies").await
    }

    /// In milliseconds, of identities and of policies.
    fn latencies(&mut self) -> (Vec<f64>, Vec<f64>) {
        (std::mem::take(&mut self.identities.latencies), std::mem::take(&mut self.policies.latencies))
    }
}

fn topic(number: usize) -> String {
    format!("topic-{number}")
}

/// No two numbers name the same consumer group.
fn grants(number: usize) -> Value {
    json!([{"identity": {"name": "reader"}, "actions": ["Consume"], "consumerGroup": format!("bench.single.{number}")}])
}

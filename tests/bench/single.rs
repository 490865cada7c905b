//! The latency of one object: alone, and during a burst in other namespaces.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::Bench;
use crate::bed::{Bed, identity, policy};
use crate::load::{self, Burst, create, key, namespaces, spread};
use crate::measure::wait_until_idle;
use crate::watch::{Key, Observation, Watch};

/// Interval between two measurements in a burst. They overlap, because otherwise there would be few slow ones.
const INTERVAL: Duration = Duration::from_millis(100);

pub async fn measure(bench: &mut Bench) -> Result<(), String> {
    let Bench { bed, sizes, report } = bench;
    let others = spread(bed, "others").await?;
    let namespace = namespaces(bed, "single", 1).await?.remove(0);
    let mut singles = Singles::new(bed, namespace, sizes.repetitions).await?;
    for number in 0..sizes.repetitions {
        singles.new_identity(number).await?;
        singles.wait_until_ready().await?;
        singles.changed_policy(number).await?;
        singles.wait_until_ready().await?;
    }
    let (identities, policies) = singles.latencies();
    report.spread("new identity", identities, "ms");
    report.spread("changed policy", policies, "ms");

    wait_until_idle(bed).await?;
    let mut watch = Watch::open(bed, "ServiceIdentity", None).await;
    let burst_is_on = Cell::new(true);
    let burst = async {
        let objects = load::identities(&others, 0..sizes.burst, &[]);
        let burst = Burst::run(bed, &mut watch, "identities of others", objects).await;
        burst_is_on.set(false);
        burst
    };
    let during_burst = async {
        for number in sizes.repetitions..2 * sizes.repetitions {
            tokio::time::sleep(INTERVAL).await;
            if !burst_is_on.get() {
                break;
            }
            singles.new_identity(number).await?;
            singles.changed_policy(number).await?;
        }
        singles.wait_until_ready().await
    };
    tokio::try_join!(burst, during_burst)?;
    let (identities, policies) = singles.latencies();
    report.spread("new identity in a burst", identities, "ms");
    report.spread("changed policy in a burst", policies, "ms");
    Ok(())
}

/// Requested changes, and how long they took.
struct Requests {
    watch: Watch,
    /// The time of each request and the generation that it created.
    open: HashMap<Key, (Instant, i64)>,
    latencies: Vec<f64>,
}

impl Requests {
    async fn new(bed: &Bed, kind: &'static str, namespace: &str) -> Self {
        let watch = Watch::open(bed, kind, Some(namespace)).await;
        Self { watch, open: HashMap::new(), latencies: Vec::new() }
    }

    async fn wait_until_ready(&mut self, what: &str) -> Result<(), String> {
        let open = std::mem::take(&mut self.open);
        let seen = self.watch.until(what, open.keys().cloned(), |key, seen| seen.ready >= Some(open[key].1)).await?;
        let latency = |(key, seen): (&Key, &Observation)| 1000.0 * (seen.at - open[key].0).as_secs_f64();
        self.latencies.extend(seen.iter().map(latency));
        Ok(())
    }
}

struct Singles<'a> {
    bed: &'a Bed,
    namespace: String,
    prepared: usize,
    identities: Requests,
    policies: Requests,
}

impl<'a> Singles<'a> {
    /// Creates an identity, and policies to change.
    async fn new(bed: &'a Bed, namespace: String, prepared: usize) -> Result<Self, String> {
        let identities = Requests::new(bed, "ServiceIdentity", &namespace).await;
        let mut policies = Requests::new(bed, "TopicPolicy", &namespace).await;
        create(bed, identity(&namespace, "reader", &["kafka"])).await?;
        let manifests = (0..prepared)
            .map(|number| policy(&namespace, &topic(number), &format!("sandbox.bench.{number}"), grants(number)))
            .collect();
        Burst::run(bed, &mut policies.watch, "policies", manifests).await?;
        wait_until_idle(bed).await?;
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
        let changed = answer.map_err(|error| format!("the TopicPolicy {name} could not be changed: {error}"))?;
        self.policies.open.insert((self.namespace.clone(), name), (began, changed.metadata.generation.unwrap_or(0)));
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<(), String> {
        self.identities.wait_until_ready("new identities").await?;
        self.policies.wait_until_ready("changed policies").await
    }

    /// Returns and clears the latencies of identities and of policies, in milliseconds.
    fn latencies(&mut self) -> (Vec<f64>, Vec<f64>) {
        (std::mem::take(&mut self.identities.latencies), std::mem::take(&mut self.policies.latencies))
    }
}

fn topic(number: usize) -> String {
    format!("topic-{number}")
}

/// Every number has its own consumer group.
fn grants(number: usize) -> Value {
    json!([{"identity": {"name": "reader"}, "actions": ["Consume"], "consumerGroup": format!("bench.single.{number}")}])
}

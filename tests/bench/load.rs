//! Creates many objects at once, and deletes them again.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures::stream::{self, TryStreamExt};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, policy};
use crate::measure::{Processors, wait_until_idle};
use crate::print_progress;
use crate::report::grouped;
use crate::watch::{Key, Observation, PROGRESS_INTERVAL, TIMEOUT, Watch};

/// The maximum number of concurrent requests of this client.
pub const IN_FLIGHT: usize = 64;

/// The number of namespaces over which a load is spread.
const SPREAD: usize = 10;

/// Label of all cluster-scoped objects that scenarios create.
pub const LABEL: &str = "credence.dev/bench";

/// Objects that were created at once.
pub struct Burst {
    /// The first observation of each object as Ready.
    pub observed: HashMap<Key, Observation>,
    /// Seconds from the first request until the last object was Ready.
    pub seconds: f64,
    /// CPU utilization of the machine meanwhile, in percent.
    pub busy: f64,
}

#[allow(clippy::cast_precision_loss, reason = "small")]
pub fn float(count: usize) -> f64 {
    count as f64
}

impl Burst {
    pub fn rate(&self) -> f64 {
        float(self.observed.len()) / self.seconds
    }

    /// Creates the objects while the watch is open, and waits until it has shown all of them as Ready.
    pub async fn run(bed: &Bed, watch: &mut Watch, what: &str, objects: Vec<Value>) -> Result<Self, String> {
        let keys: Vec<Key> = objects.iter().map(key).collect();
        let what = format!("{} {what}", grouped(objects.len()));
        let processors = Processors::now();
        let began = Instant::now();
        let ready = watch.until(&what, keys, |_, seen| seen.is_ready());
        let ((), observed) = tokio::try_join!(create_all(bed, objects), ready)?;
        let busy = processors.busy();
        let last = observed.values().map(|seen| seen.at).max().unwrap_or(began);
        Ok(Self { observed, seconds: (last - began).as_secs_f64(), busy })
    }
}

pub fn key(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

pub async fn create_all(bed: &Bed, objects: Vec<Value>) -> Result<(), String> {
    concurrently(objects, async |object| create(bed, object).await).await
}

pub async fn create(bed: &Bed, object: Value) -> Result<(), String> {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let (namespace, name) = key(&object);
    let api = bed.api(&kind, Some(&*namespace).filter(|it| !it.is_empty()));
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let answer = api.create(&PostParams::default(), &object).await;
    answer.map(drop).map_err(|error| format!("{kind} {namespace}/{name} could not be created: {error}"))
}

/// Calls `act` for each item, with limited concurrency, until one call fails.
pub async fn concurrently<T>(
    all: impl IntoIterator<Item = T>,
    act: impl AsyncFn(T) -> Result<(), String>,
) -> Result<(), String> {
    stream::iter(all.into_iter().map(Ok)).try_for_each_concurrent(IN_FLIGHT, |one| act(one)).await
}

/// Creates the namespaces of a load.
pub async fn spread(bed: &Bed, prefix: &str) -> Result<Vec<String>, String> {
    namespaces(bed, prefix, SPREAD).await
}

/// Creates namespaces, and waits until the operator has processed them.
pub async fn namespaces(bed: &Bed, prefix: &str, count: usize) -> Result<Vec<String>, String> {
    let names: Vec<String> = (0..count).map(|number| format!("bench-{prefix}-{number}")).collect();
    let manifest = |name: &String| {
        let metadata = json!({"name": name, "labels": {LABEL: prefix}});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    };
    concurrently(&names, async |name| bed.apply(manifest(name)).await.map(drop)).await?;
    wait_until_idle(bed).await?;
    Ok(names)
}

pub fn identities(namespaces: &[String], numbers: Range<usize>, brokers: &[&str]) -> Vec<Value> {
    let one = |number: usize| identity(&namespaces[number % namespaces.len()], &format!("service-{number}"), brokers);
    numbers.map(one).collect()
}

/// A policy for each identity, with five bindings: the identity publishes, and two others consume.
pub fn policies(namespaces: &[String], numbers: Range<usize>) -> Vec<Value> {
    let count = numbers.len();
    let home = |number: usize| namespaces[number % namespaces.len()].as_str();
    let one = |number: usize| {
        let mut grants = vec![json!({"identity": {"name": format!("service-{number}")}, "actions": ["Publish"]})];
        for distance in 1..=2 {
            let reader = numbers.start + (number - numbers.start + distance * namespaces.len()) % count;
            grants.push(json!({
                "identity": {"name": format!("service-{reader}"), "namespace": home(reader)},
                "actions": ["Consume"],
                "consumerGroup": format!("bench.{number}.{distance}"),
            }));
        }
        policy(home(number), &format!("topic-{number}"), &format!("sandbox.bench.{number}"), grants.into())
    };
    numbers.clone().map(one).collect()
}

/// The number of objects of a kind.
pub async fn count(bed: &Bed, kind: &str) -> f64 {
    let page = bed.api(kind, None).list_metadata(&ListParams::default().limit(1)).await.unwrap();
    let rest = page.metadata.remaining_item_count.unwrap_or(0);
    float(page.items.len() + usize::try_from(rest).unwrap())
}

/// Deletes the objects of scenarios, and waits until they are deleted.
pub async fn clear(bed: &Bed) -> Result<(), String> {
    let ours = ListParams::default().labels(LABEL);
    let domains = bed.api("TrustDomain", None);
    domains.delete_collection(&DeleteParams::default(), &ours).await.map_err(|error| error.to_string())?;
    let namespaces = bed.api("Namespace", None);
    let left = || async {
        let left = namespaces.list_metadata(&ours).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(left.items.into_iter().filter_map(|it| it.metadata.name).collect::<Vec<_>>())
    };
    let mut names = left().await?;
    if names.is_empty() {
        return Ok(());
    }
    concurrently(&names, async |name| {
        let answer = namespaces.delete(name, &DeleteParams::default()).await;
        answer.map(drop).map_err(|error| format!("the namespace {name} could not be deleted: {error}"))
    })
    .await?;
    let (mut printed, mut progressed) = (Instant::now(), Instant::now());
    // The contents of namespaces are deleted first, so progress shows in the number of objects.
    let mut objects = f64::INFINITY;
    while !names.is_empty() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = count(bed, "Secret").await + count(bed, "TopicPolicy").await;
        let before = std::mem::replace(&mut names, left().await?);
        if now < objects || names.len() < before.len() {
            (objects, progressed) = (now, Instant::now());
        }
        if progressed.elapsed() > TIMEOUT {
            return Err(format!("the namespace {} was not deleted in time", names[0]));
        }
        if printed.elapsed() > PROGRESS_INTERVAL {
            printed = Instant::now();
            print_progress("deleting the objects of earlier scenarios", names.len(), "namespaces left");
        }
    }
    wait_until_idle(bed).await?;
    Ok(())
}

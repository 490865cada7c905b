//! What is asked of the operator, many objects at once; and how they are taken away again.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures::stream::{self, TryStreamExt};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::bed::{Bed, identity, policy};
use crate::measure::{Processors, quiet};
use crate::report::grouped;
use crate::say;
use crate::watch::{Key, PATIENCE, SIGN_OF_LIFE, Sight, Watch};

/// How many requests this client has under way at once.
pub const IN_FLIGHT: usize = 64;

/// How many namespaces a load is spread over.
const SPREAD: usize = 10;

/// Label of whatever a scenario makes for the whole cluster.
pub const MARK: &str = "credence.dev/bench";

/// Objects that were made at once.
pub struct Burst {
    /// How the watch first showed each to be Ready.
    pub sights: HashMap<Key, Sight>,
    /// From the first request to the last of them Ready.
    pub seconds: f64,
    /// How much of the machine was at work meanwhile, in percent.
    pub busy: f64,
}

#[allow(clippy::cast_precision_loss, reason = "small")]
pub fn float(count: usize) -> f64 {
    count as f64
}

impl Burst {
    pub fn rate(&self) -> f64 {
        float(self.sights.len()) / self.seconds
    }

    /// Makes the objects while the watch is open, and waits until it has shown all of them to be Ready.
    pub async fn run(bed: &Bed, watch: &mut Watch, what: &str, objects: Vec<Value>) -> Result<Self, String> {
        let keys: Vec<Key> = objects.iter().map(key).collect();
        let what = format!("{} {what}", grouped(objects.len()));
        let processors = Processors::now();
        let began = Instant::now();
        let ready = watch.until(&what, keys, |_, sight| sight.is_ready());
        let ((), sights) = tokio::try_join!(create_all(bed, objects), ready)?;
        let busy = processors.busy();
        let last = sights.values().map(|sight| sight.at).max().unwrap_or(began);
        Ok(Self { sights, seconds: (last - began).as_secs_f64(), busy })
    }
}

pub fn key(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

pub async fn create_all(bed: &Bed, objects: Vec<Value>) -> Result<(), String> {
    at_once(objects, async |object| create(bed, object).await).await
}

pub async fn create(bed: &Bed, object: Value) -> Result<(), String> {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let (namespace, name) = key(&object);
    let api = bed.api(&kind, Some(&*namespace).filter(|it| !it.is_empty()));
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let answer = api.create(&PostParams::default(), &object).await;
    answer.map(drop).map_err(|error| format!("{kind} {namespace}/{name} cannot be created: {error}"))
}

/// Does the same for each of them, many at a time, until one fails.
pub async fn at_once<T>(
    all: impl IntoIterator<Item = T>,
    act: impl AsyncFn(T) -> Result<(), String>,
) -> Result<(), String> {
    stream::iter(all.into_iter().map(Ok)).try_for_each_concurrent(IN_FLIGHT, |one| act(one)).await
}

/// The namespaces of a load.
pub async fn spread(bed: &Bed, prefix: &str) -> Result<Vec<String>, String> {
    namespaces(bed, prefix, SPREAD).await
}

/// Makes namespaces, and lets what comes with any namespace come.
pub async fn namespaces(bed: &Bed, prefix: &str, count: usize) -> Result<Vec<String>, String> {
    let names: Vec<String> = (0..count).map(|number| format!("bench-{prefix}-{number}")).collect();
    let manifest = |name: &String| {
        let metadata = json!({"name": name, "labels": {MARK: prefix}});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    };
    at_once(&names, async |name| bed.apply(manifest(name)).await.map(drop)).await?;
    quiet(bed).await?;
    Ok(names)
}

pub fn identities(namespaces: &[String], numbers: Range<usize>, brokers: &[&str]) -> Vec<Value> {
    let one = |number: usize| identity(&namespaces[number % namespaces.len()], &format!("service-{number}"), brokers);
    numbers.map(one).collect()
}

/// A policy for each of the identities, with five bindings: it publishes, and two of its neighbours consume.
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

/// How many objects of a kind there are.
pub async fn count(bed: &Bed, kind: &str) -> f64 {
    let page = bed.api(kind, None).list_metadata(&ListParams::default().limit(1)).await.unwrap();
    let rest = page.metadata.remaining_item_count.unwrap_or(0);
    float(page.items.len() + usize::try_from(rest).unwrap())
}

/// Takes away what scenarios made, and waits until it is gone.
pub async fn clear(bed: &Bed) -> Result<(), String> {
    let ours = ListParams::default().labels(MARK);
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
    at_once(&names, async |name| {
        let answer = namespaces.delete(name, &DeleteParams::default()).await;
        answer.map(drop).map_err(|error| format!("the namespace {name} cannot be deleted: {error}"))
    })
    .await?;
    let (mut said, mut moved) = (Instant::now(), Instant::now());
    // What is in them goes first, so that is what moves.
    let mut objects = f64::INFINITY;
    while !names.is_empty() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = count(bed, "Secret").await + count(bed, "TopicPolicy").await;
        let before = std::mem::replace(&mut names, left().await?);
        if now < objects || names.len() < before.len() {
            (objects, moved) = (now, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            return Err(format!("the namespace {} does not go away", names[0]));
        }
        if said.elapsed() > SIGN_OF_LIFE {
            said = Instant::now();
            say("taking away what is there", names.len(), "namespaces left");
        }
    }
    quiet(bed).await?;
    Ok(())
}

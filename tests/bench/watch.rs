//! Observations of one open watch. Figures are taken from the watch, never by polling.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::core::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::bed::Bed;
use crate::print_progress;
use crate::report::grouped;

/// How long nothing may change before a scenario fails. It is longer than the operator's maximum backoff.
pub const TIMEOUT: Duration = Duration::from_secs(180);

/// Interval between two lines of progress.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Namespace and name.
pub type Key = (String, String);

/// An object as the watch has shown it.
#[derive(Clone, Debug)]
pub struct Observation {
    pub at: Instant,
    pub generation: i64,
    /// The generation that is Ready.
    pub ready: Option<i64>,
    /// Serial number of an identity's certificate, or the bundle in a ConfigMap.
    pub content: String,
    /// The Ready condition as text.
    condition: String,
}

impl Observation {
    fn of(object: &DynamicObject) -> Self {
        let conditions = object.data["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
        let content = object.data["data"]["ca.crt"].as_str();
        Self {
            at: Instant::now(),
            generation: object.metadata.generation.unwrap_or(0),
            ready: ready.filter(|it| it["status"] == "True").and_then(|it| it["observedGeneration"].as_i64()),
            content: content
                .or(object.data["status"]["certificate"]["serialNumber"].as_str())
                .unwrap_or_default()
                .to_owned(),
            condition: ready.map_or_else(
                || "no condition Ready".to_owned(),
                |it| {
                    let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
                    format!("Ready is {}, {}: {}", text("status"), text("reason"), text("message"))
                },
            ),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.ready == Some(self.generation)
    }
}

pub struct Watch {
    kind: &'static str,
    observations: UnboundedReceiver<(Key, Observation)>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Opens a watch, and returns when it has listed the existing objects.
    pub async fn open(bed: &Bed, kind: &'static str, namespace: Option<&str>) -> Self {
        Self::open_with(bed, kind, namespace, watcher::Config::default()).await
    }

    pub async fn open_with(bed: &Bed, kind: &'static str, namespace: Option<&str>, config: watcher::Config) -> Self {
        let events = watcher(bed.api(kind, namespace), config).default_backoff();
        let (sender, observations) = unbounded_channel();
        let (listed, is_listed) = oneshot::channel();
        let task = tokio::spawn(follow(events, sender, listed)).abort_handle();
        is_listed.await.unwrap();
        Self { kind, observations, task }
    }

    /// Waits until the watch has shown every object in the wanted state, and returns these observations.
    pub async fn until(
        &mut self,
        what: &str,
        wanted: impl IntoIterator<Item = Key>,
        is_reached: impl Fn(&Key, &Observation) -> bool,
    ) -> Result<HashMap<Key, Observation>, String> {
        let mut open: HashSet<Key> = wanted.into_iter().collect();
        let (mut reached, mut last) = (HashMap::new(), HashMap::new());
        let mut progressed = Instant::now();
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.reset();
        while !open.is_empty() {
            tokio::select! {
                seen = self.observations.recv() => {
                    let (key, observation) = seen.ok_or("the watch ended")?;
                    if !open.contains(&key) {
                        continue;
                    }
                    if is_reached(&key, &observation) {
                        progressed = observation.at;
                        open.remove(&key);
                        reached.insert(key, observation);
                    } else {
                        last.insert(key, observation.condition);
                    }
                }
                _ = progress.tick() => {
                    print_progress(what, reached.len(), "ready");
                    if progressed.elapsed() > TIMEOUT {
                        return Err(self.timeout_error(what, &open, &last));
                    }
                }
            }
        }
        Ok(reached)
    }

    fn timeout_error(&self, what: &str, open: &HashSet<Key>, last: &HashMap<Key, String>) -> String {
        let Some(first) = open.iter().min() else { return String::new() };
        format!(
            "{what}: {} of them are missing, and nothing changed for {} s; last state of {} {}/{}: {}",
            grouped(open.len()),
            TIMEOUT.as_secs(),
            self.kind,
            first.0,
            first.1,
            last.get(first).map_or("not seen by the watch", String::as_str)
        )
    }
}

async fn follow(
    events: impl futures::Stream<Item = watcher::Result<Event<DynamicObject>>>,
    observations: UnboundedSender<(Key, Observation)>,
    listed: oneshot::Sender<()>,
) {
    let mut events = pin!(events);
    let mut listed = Some(listed);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let observation = Observation::of(&object);
                let key = (object.metadata.namespace.unwrap_or_default(), object.metadata.name.unwrap_or_default());
                // The receiver is dropped before the task is aborted.
                _ = observations.send((key, observation));
            }
            Ok(Event::InitDone) => _ = listed.take().map(|listed| listed.send(())),
            Ok(Event::Init | Event::Delete(_)) => {}
            Err(error) => eprintln!("    reopening the watch: {error}"),
        }
    }
}

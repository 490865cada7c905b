//! What one open watch shows, and when. A figure is taken from the watch, never by asking again and again.

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
use crate::report::grouped;
use crate::say;

/// How long nothing at all may come about. An operator that backs off looks again within this.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Between two lines for whoever waits.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Namespace and name.
pub type Key = (String, String);

/// An object as the watch showed it.
#[derive(Clone, Debug)]
pub struct Sight {
    pub at: Instant,
    pub generation: i64,
    /// The generation that is Ready.
    pub ready: Option<i64>,
    /// Serial number of an identity's certificate, or the bundle in a ConfigMap.
    pub content: String,
    /// The last word of its status.
    said: String,
}

impl Sight {
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
            said: ready.map_or_else(
                || "nothing of Ready".to_owned(),
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
    sights: UnboundedReceiver<(Key, Sight)>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Opens a watch, and returns when it has listed what there is.
    pub async fn open(bed: &Bed, kind: &'static str, namespace: Option<&str>) -> Self {
        Self::open_with(bed, kind, namespace, watcher::Config::default()).await
    }

    pub async fn open_with(bed: &Bed, kind: &'static str, namespace: Option<&str>, config: watcher::Config) -> Self {
        let events = watcher(bed.api(kind, namespace), config).default_backoff();
        let (sender, sights) = unbounded_channel();
        let (listed, is_listed) = oneshot::channel();
        let task = tokio::spawn(follow(events, sender, listed)).abort_handle();
        is_listed.await.unwrap();
        Self { kind, sights, task }
    }

    /// Waits until the watch has shown each of the objects to be good, and returns what it showed then.
    pub async fn until(
        &mut self,
        what: &str,
        wanted: impl IntoIterator<Item = Key>,
        good: impl Fn(&Key, &Sight) -> bool,
    ) -> Result<HashMap<Key, Sight>, String> {
        let mut open: HashSet<Key> = wanted.into_iter().collect();
        let (mut met, mut last) = (HashMap::new(), HashMap::new());
        let mut moved = Instant::now();
        let mut sign = tokio::time::interval(SIGN_OF_LIFE);
        sign.reset();
        while !open.is_empty() {
            tokio::select! {
                seen = self.sights.recv() => {
                    let (key, sight) = seen.ok_or("the watch ended")?;
                    if !open.contains(&key) {
                        continue;
                    }
                    if good(&key, &sight) {
                        moved = sight.at;
                        open.remove(&key);
                        met.insert(key, sight);
                    } else {
                        last.insert(key, sight.said);
                    }
                }
                _ = sign.tick() => {
                    say(what, met.len(), "ready");
                    if moved.elapsed() > PATIENCE {
                        return Err(self.in_vain(what, &open, &last));
                    }
                }
            }
        }
        Ok(met)
    }

    fn in_vain(&self, what: &str, open: &HashSet<Key>, last: &HashMap<Key, String>) -> String {
        let Some(first) = open.iter().min() else { return String::new() };
        format!(
            "{what}: {} of them did not come about, and nothing did for {} s; {} {}/{} last said: {}",
            grouped(open.len()),
            PATIENCE.as_secs(),
            self.kind,
            first.0,
            first.1,
            last.get(first).map_or("nothing, it was not seen", String::as_str)
        )
    }
}

async fn follow(
    events: impl futures::Stream<Item = watcher::Result<Event<DynamicObject>>>,
    sights: UnboundedSender<(Key, Sight)>,
    listed: oneshot::Sender<()>,
) {
    let mut events = pin!(events);
    let mut listed = Some(listed);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let sight = Sight::of(&object);
                let key = (object.metadata.namespace.unwrap_or_default(), object.metadata.name.unwrap_or_default());
                // Nobody listens any more when the watch is about to be aborted.
                _ = sights.send((key, sight));
            }
            Ok(Event::InitDone) => _ = listed.take().map(|listed| listed.send(())),
            Ok(Event::Init | Event::Delete(_)) => {}
            Err(error) => eprintln!("    the watch is opened again: {error}"),
        }
    }
}

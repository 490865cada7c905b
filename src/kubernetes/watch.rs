//! Watches: one per kind. An object is in its store before anybody is told of it, so whoever is told can look it up.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use kube::Resource;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::watcher::{Error, Event};

/// Follows a watch until it ends, which it does not by itself: keeps the store, and calls `changed` for every object
/// that was added, changed or removed.
pub async fn follow<K>(
    events: impl Stream<Item = Result<Event<K>, Error>> + Send,
    writer: Writer<K>,
    mut changed: impl FnMut(&ObjectRef<K>) + Send,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let store: Store<K> = writer.as_reader();
    let events = events.default_backoff().modify(forget_bookkeeping).reflect(writer);
    pin_mut!(events);
    let mut before: Vec<Arc<K>> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => changed(&ObjectRef::from_obj(&object)),
            // During a list the store still shows the old state; what vanished meanwhile is only known at its end.
            Ok(Event::Init) => before = store.state(),
            Ok(Event::InitApply(_)) => {}
            Ok(Event::InitDone) => {
                let after = store.state();
                let mut touched: Vec<ObjectRef<K>> =
                    before.drain(..).chain(after).map(|object| ObjectRef::from_obj(object.as_ref())).collect();
                touched.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
                touched.dedup();
                touched.iter().for_each(&mut changed);
            }
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; it is started again"),
        }
    }
}

/// Drops what no decision looks at and what makes up most of an object in memory.
fn forget_bookkeeping<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = object.meta_mut().annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

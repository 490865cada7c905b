//! What every kind has, once: its objects, its index, its queue, and the one way in which a reconcile ends.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource};
use parking_lot::{Mutex, RwLock};

use super::kind::{IndexKey, ManagedKind, SpecFacts};
use crate::api::{ConditionType, Conditions, Reason, Status};
use crate::domain::index::Index;
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::events::Events;
use crate::kubernetes::run::{Done, Next, Trigger};
use crate::kubernetes::status::{StatusWriter, set_finalizer};
use crate::kubernetes::store::{Change, Store};

/// Which objects of a kind are woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// None.
    Nobody,
    /// This one.
    One(Name),
    /// All.
    All,
    /// Those in these namespaces.
    Namespaces(Vec<Arc<str>>),
    /// Those whose `ManagedKind::index_keys` has one of these keys.
    Using(Vec<IndexKey>),
    /// Those that are found by this key and are not Ready.
    UnreadyUsing(IndexKey),
}

/// The end of a reconcile.
pub struct Conclusion<'a, K: ManagedKind> {
    /// The object.
    pub object: &'a K,
    /// Its status as it was written last.
    pub current: &'a K::Status,
    /// Its status as it should be, conditions aside.
    pub status: K::Status,
    /// What `Ready` says when every other condition is met.
    pub ready: String,
    /// When the object is to be looked at next, if nothing changes before.
    pub next: Next,
    /// The time that the reconcile observed.
    pub now: Timestamp,
}

struct Shared<K: ManagedKind> {
    client: Client,
    events: Events,
    store: Store<K>,
    index: RwLock<Index<IndexKey>>,
    trigger: Trigger,
    status: StatusWriter<K::Status>,
}

/// Access to the objects of one kind. Cheap to clone; all clones are one.
pub struct Handle<K: ManagedKind>(Arc<Shared<K>>);

impl<K: ManagedKind> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: ManagedKind> Handle<K> {
    fn new(client: Client, events: Events) -> Self {
        let store = Store::default();
        let for_lane = store.clone();
        let trigger = Trigger::new(K::WORKERS, K::DEBOUNCE, move |name| K::lane(&for_lane, name));
        let (index, status) = (RwLock::default(), StatusWriter::default());
        Self(Arc::new(Shared { client, events, store, index, trigger, status }))
    }

    /// The objects.
    #[must_use]
    pub fn store(&self) -> &Store<K> {
        &self.0.store
    }

    /// The queue of the controller.
    #[must_use]
    pub fn trigger(&self) -> &Trigger {
        &self.0.trigger
    }

    /// The status as it was written last, which the watch may not have seen yet.
    pub fn status(&self, object: &K) -> K::Status {
        self.0.status.current(object, object.status())
    }

    /// Whether an object is found by a key.
    #[must_use]
    pub fn has(&self, key: &IndexKey) -> bool {
        self.0.index.read().has(key)
    }

    /// The objects that are found by a key and can be read.
    pub fn using(&self, key: &IndexKey) -> impl Iterator<Item = K> + use<'_, K> {
        let names = self.0.index.read().users(key);
        names.into_iter().filter_map(|name| self.0.store.find(&name)?.ok())
    }

    /// Follows a change in the index.
    pub fn index(&self, change: &Change<K>) {
        let keys = |object: Option<&K>| object.map(K::index_keys).unwrap_or_default();
        self.0.index.write().update(&change.name, keys(change.before.as_ref()), keys(change.after.as_ref()));
    }

    /// Queues an object that has changed, unless only our own write of its status did it.
    pub fn changed(&self, change: &Change<K>) {
        if change.differs(SpecFacts::of) {
            self.0.trigger.fire_afresh(&change.name);
            return;
        }
        let is_own_write = change.after.as_ref().is_some_and(|object| self.0.status.is_own_write(object));
        if !is_own_write || change.differs(metadata_facts) {
            self.0.trigger.fire(&change.name);
        }
    }

    /// Queues the objects that are to be looked at. With `afresh`, those that failed need not wait until their pause is over.
    pub fn wake(&self, wake: Wake, afresh: bool) {
        let names = match wake {
            Wake::Nobody => return,
            Wake::One(name) => vec![name],
            Wake::All => self.0.store.names(None),
            Wake::Namespaces(namespaces) => {
                namespaces.iter().flat_map(|namespace| self.0.store.names(Some(namespace))).collect()
            }
            Wake::Using(keys) => {
                let index = self.0.index.read();
                keys.iter().flat_map(|key| index.users(key)).collect()
            }
            Wake::UnreadyUsing(key) => {
                let unready = self.using(&key).filter(|object| !object.is_ready());
                unready.map(|object| Name::of(&object)).collect()
            }
        };
        for name in &names {
            if afresh {
                self.0.trigger.fire_afresh(name);
            } else {
                self.0.trigger.fire(name);
            }
        }
    }

    /// Adds or removes a finalizer. Returns whether the object still exists.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn set_finalizer(&self, object: &K, finalizer: &str, present: bool) -> Result<bool, Error> {
        set_finalizer(&self.0.client, object, finalizer, present).await
    }

    /// Writes a status in the middle of a reconcile. Returns whether the object still exists.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn write_status(&self, object: &K, current: &K::Status, wanted: &K::Status) -> Result<bool, Error> {
        self.0.status.write(&self.0.client, object, current, wanted).await
    }

    /// The end of a reconcile that failed: `Ready` says why. The other conditions stay, since nothing is known about them.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn report_failure(&self, object: &K, error: &Error) -> Result<(), Error> {
        let current = self.status(object);
        let (previous, generation) = (current.conditions(), object.meta().generation);
        let mut conditions = Conditions::new();
        conditions.unmet(ConditionType::Ready, Reason::ReconcileFailed, error.to_string());
        let others = previous.iter().filter(|condition| condition.type_ != ConditionType::Ready.as_str());
        let decided = conditions.merge(previous, generation, Timestamp::now());
        let mut status = current.clone();
        status.set_conditions(generation, others.cloned().chain(decided).collect());
        if self.write_status(object, &current, &status).await? {
            self.0.events.transition(object, previous, &conditions).await;
        }
        Ok(())
    }

    /// The one end of every other reconcile: `Ready` is derived from the other conditions, the status is written when it
    /// differs, and an event is published when the object stops being Ready. `None` when the object is gone.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn conclude(
        &self,
        conclusion: Conclusion<'_, K>,
        conditions: &mut Conditions,
    ) -> Result<Option<Done>, Error> {
        let Conclusion { object, current, mut status, ready, next, now } = conclusion;
        conditions.conclude(ready);
        let generation = object.meta().generation;
        let previous = current.conditions();
        status.set_conditions(generation, conditions.merge(previous, generation, now));
        if !self.write_status(object, current, &status).await? {
            return Ok(None);
        }
        self.0.events.transition(object, previous, conditions).await;
        Ok(Some(Done::with(conditions, next)))
    }
}

/// What others can change of an object beside its spec and its status.
fn metadata_facts<K: Resource>(object: &K) -> impl PartialEq + use<'_, K> {
    let ObjectMeta { labels, annotations, finalizers, owner_references, .. } = object.meta();
    (labels.as_ref(), annotations.as_ref(), finalizers.as_ref(), owner_references.as_ref())
}

/// The handles of all kinds, each made when it is first asked for.
#[derive(Clone)]
pub struct Handles {
    client: Client,
    events: Events,
    by_kind: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl Handles {
    /// No handles yet.
    #[must_use]
    pub fn new(client: Client, events: Events) -> Self {
        Self { client, events, by_kind: Arc::default() }
    }

    /// The handle of a kind.
    #[must_use]
    pub fn of<K: ManagedKind>(&self) -> Handle<K> {
        let make = || Handle::<K>::new(self.client.clone(), self.events.clone());
        let mut handles = self.by_kind.lock();
        let known = handles.entry(TypeId::of::<K>()).or_insert_with(|| Box::new(make()));
        // The entry of a type holds a handle of this type and nothing else.
        known.downcast_ref::<Handle<K>>().cloned().unwrap_or_else(make)
    }
}

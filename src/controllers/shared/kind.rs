//! What the registry has to know of a kind, and what a controller is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use super::claims::NameClaim;
use super::signal::Signal;
use crate::api::Kind;
use crate::domain::name::{Name, ObjectRef};
use crate::kubernetes::error::Error;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::{Change, Store};
use crate::metrics::Metrics;

/// What an object is found by, in the table of wakes and by other controllers: what it refers to, its UID, or that it is
/// being deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexKey {
    /// It refers to this object in its spec.
    Object(ObjectRef),
    /// It refers to this Secret in the operator's namespace.
    OperatorSecret(Arc<str>),
    /// It refers to this Secret in its own namespace.
    Secret(Name),
    /// It delivers to this Service in its own namespace.
    Service(Name),
    /// It is in this namespace, or depends on what this namespace may do.
    Namespace(Arc<str>),
    /// It has this UID.
    Uid(Arc<str>),
    /// It is being deleted.
    Terminating,
}

impl IndexKey {
    /// The key of an object of the whole cluster.
    pub fn cluster<K: Kind>(name: &str) -> Self {
        Self::Object(ObjectRef { kind: K::KIND, name: Name::new(None, name) })
    }

    /// The key of an object in a namespace.
    pub fn object<K: Kind>(name: Name) -> Self {
        Self::Object(ObjectRef { kind: K::KIND, name })
    }

    /// [`Self::Terminating`], for an object that is being deleted.
    pub fn terminating<K: Resource>(object: &K) -> Option<Self> {
        object.meta().deletion_timestamp.as_ref().map(|_| Self::Terminating)
    }
}

/// How the objects of a kind wait for a worker, what they refer to and claim, and what others learn of their changes.
/// Pure: nothing here reads or writes anything.
pub trait ManagedKind: Kind {
    /// How many objects of one group are worked on at once.
    const WORKERS: usize = 64;
    /// For how long reasons to look at an object are collected before it is looked at.
    const DEBOUNCE: Duration = Duration::ZERO;
    /// Whether others depend on its objects so much that these are reconciled first at a start.
    const STARTS_FIRST: bool = false;

    /// Where an object waits.
    fn lane(store: &Store<Self>, name: &Name) -> Lane;

    /// The keys under which the table of wakes finds the object: one for each object or Secret that it refers to.
    fn index_keys(&self) -> Vec<IndexKey>;

    /// The names that an object claims and only one object may hold.
    fn claims(&self) -> Vec<NameClaim> {
        Vec::new()
    }

    /// What others have to know of a change.
    fn signals(change: &Change<Self>) -> Vec<Signal>;
}

/// Brings the objects of one kind to what their specs say. A struct that holds only what it uses.
pub trait Controller: Send + Sync + 'static {
    /// The kind.
    type Kind: ManagedKind;

    /// Brings one object to what its spec says.
    fn reconcile(&self, object: Arc<Self::Kind>) -> impl Future<Output = Result<Done, Error>> + Send;

    /// Updates what the controller keeps in memory, before anybody is woken by the change.
    fn remember(&self, _change: &Change<Self::Kind>) {}

    /// Sets gauges that cost little; called for every exposition of the metrics.
    fn measure(&self, _metrics: &Metrics) {}

    /// Sets gauges that are counted object by object; called seldom.
    fn count(&self, _metrics: &Metrics, _now: Timestamp) {}
}

/// The facts that change when an object is created, replaced, edited in its spec, or begins to be deleted; status and
/// labels are left out. For [`Change::differs`].
#[derive(Debug, PartialEq, Eq)]
pub struct SpecFacts<'a> {
    uid: Option<&'a str>,
    generation: Option<i64>,
    is_terminating: bool,
}

impl<'a> SpecFacts<'a> {
    /// The facts of an object.
    pub fn of<K: Resource>(object: &'a K) -> Self {
        let ObjectMeta { uid, generation, deletion_timestamp, .. } = object.meta();
        Self { uid: uid.as_deref(), generation: *generation, is_terminating: deletion_timestamp.is_some() }
    }
}

/// A lane of its own, for an object that may wait for something slow outside.
#[must_use]
pub fn alone(name: &Name) -> Lane {
    Lane { group: name.name.to_string(), turn: String::new() }
}

/// The common lane, for an object that waits for nothing outside; namespaces take turns.
#[must_use]
pub fn by_namespace(name: &Name) -> Lane {
    Lane { turn: name.namespace.to_string(), ..Lane::default() }
}

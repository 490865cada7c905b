//! Message brokers: one session for each `BrokerConnection`. A session caches the ACLs of its broker and is the only writer of
//! them. ACLs are called bindings here.

pub mod absent;
mod decide;
mod inventory;
pub mod kafka;
mod ledger;
pub mod records;
pub mod registry;
pub mod session;
pub mod state;
mod worker;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;

use thiserror::Error;

use crate::api::{AppliedBinding, Reason};
use crate::domain::grants::Bindings;

/// Why an operation on a broker failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BrokerFailure {
    /// The reason of the condition that reports it.
    pub reason: Reason,
    /// Subject, cause and next step, for people.
    pub message: String,
}

/// Facts about a cluster that its brokers report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// ID of the cluster.
    pub cluster_id: Option<String>,
    /// Number of brokers in the cluster.
    pub brokers: u32,
    /// Whether the operator may create and delete bindings.
    pub may_alter: bool,
}

/// How many bindings a status lists at most; the others are only counted.
const MAX_LISTED: usize = 50;

/// All ACLs of a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// ACLs that a policy could have created.
    pub bindings: Bindings,
    /// A description of every other ACL, such as a denial.
    pub foreign: Vec<String>,
}

/// The bindings of a batch that failed, each with the cause. All others succeeded.
pub type Failures = BTreeMap<AppliedBinding, String>;

/// Administration of one broker over one connection. After an error the connection cannot be used any more.
pub trait Admin: Send + Sized + 'static {
    /// Addresses and credentials.
    type Config: Clone + Send + Sync + 'static;

    /// Connects.
    fn connect(config: &Self::Config) -> impl Future<Output = Result<Self, BrokerFailure>> + Send;

    /// Reads facts about the cluster, and which rights the operator has.
    fn facts(&mut self) -> impl Future<Output = Result<ClusterFacts, BrokerFailure>> + Send;

    /// Lists all ACLs.
    fn list(&mut self) -> impl Future<Output = Result<Holdings, BrokerFailure>> + Send;

    /// Creates bindings in one batch, and returns when the broker lists them.
    fn add(&mut self, bindings: &Bindings) -> impl Future<Output = Result<Failures, BrokerFailure>> + Send;

    /// Deletes bindings in one batch. A binding that does not exist counts as deleted.
    fn remove(&mut self, bindings: &Bindings) -> impl Future<Output = Result<Failures, BrokerFailure>> + Send;
}

/// An example of a binding: a service may write to this topic.
#[cfg(test)]
fn topic(name: &str) -> AppliedBinding {
    AppliedBinding {
        principal: "User:CN=orders,OU=shop,O=demo".into(),
        operation: crate::api::BindingOperation::Write,
        resource: crate::api::BindingResource::Topic,
        pattern: crate::api::BindingPattern::Literal,
        name: name.into(),
    }
}

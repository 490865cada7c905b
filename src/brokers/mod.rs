//! Message brokers: one session per connection, one view of what the broker holds, one queue of changes.

pub mod kafka;
mod ledger;
pub mod registry;
pub mod session;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;

use thiserror::Error;

use crate::api::{AppliedBinding, Reason};
use crate::domain::grants::Bindings;

/// Why a broker did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BrokerFailure {
    /// The reason of the condition that reports it.
    pub reason: Reason,
    /// Subject, cause and next step, for people.
    pub message: String,
}

/// What a broker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// The ID that the cluster gives itself.
    pub cluster_id: Option<String>,
    /// How many brokers it has.
    pub brokers: u32,
    /// Whether it lets the operator change bindings.
    pub may_alter: bool,
}

/// How many bindings are listed in words at most.
const LISTED: usize = 50;

/// What a broker holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Bindings that a policy could have made.
    pub bindings: Bindings,
    /// Everything else, in words.
    pub foreign: Vec<String>,
}

/// Results of a batch: what failed, and why. What is not named succeeded.
pub type Failures = BTreeMap<AppliedBinding, String>;

/// Administration of one broker over one connection. An error means that the connection is of no more use.
pub trait Admin: Send + Sized + 'static {
    /// What it takes to connect.
    type Config: Clone + Send + Sync + 'static;

    /// Connects.
    fn connect(config: &Self::Config) -> impl Future<Output = Result<Self, BrokerFailure>> + Send;

    /// What the broker is, and what it lets the operator do.
    fn facts(&mut self) -> impl Future<Output = Result<ClusterFacts, BrokerFailure>> + Send;

    /// What the broker holds.
    fn list(&mut self) -> impl Future<Output = Result<Holdings, BrokerFailure>> + Send;

    /// Adds bindings in one batch, and returns when the broker itself lists them.
    fn add(&mut self, bindings: &Bindings) -> impl Future<Output = Result<Failures, BrokerFailure>> + Send;

    /// Removes bindings in one batch. What is not there counts as removed.
    fn remove(&mut self, bindings: &Bindings) -> impl Future<Output = Result<Failures, BrokerFailure>> + Send;
}

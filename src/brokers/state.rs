//! What a session with a broker is started with, and what it shows of itself.

use std::sync::Arc;
use std::time::Duration;

use super::absent::{AbsentPolicies, HeldBack};
use super::{BrokerFailure, ClusterFacts};
use crate::api::BindingList;
use crate::domain::fence::Fence;

/// How a session is to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionMode {
    /// Whether to change the broker, or only to report what would change.
    pub enforce: bool,
    /// What becomes of rights whose policies do not exist any more.
    pub absent: AbsentPolicies,
    /// How often the broker is compared with what was applied.
    pub resync: Duration,
    /// For how long a policy has to be absent until its rights are revoked.
    pub absent_for: Duration,
    /// How many bindings the policies of one namespace may have.
    pub per_namespace: usize,
}

/// Whether a policy, by its UID and its name (`namespace/name`), exists. One that cannot be read exists.
pub type Exists = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// What a session uses of the operator.
#[derive(Clone)]
pub struct Context {
    /// Which policies exist.
    pub exists: Exists,
    /// Nothing is changed once it has fallen.
    pub fence: Fence,
    /// Is told for how long a step of the session held its thread.
    pub held: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// Whether a session is connected.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ConnectionState {
    /// The first attempt has not ended yet.
    #[default]
    Connecting,
    /// It is connected to this cluster.
    Connected(ClusterFacts),
    /// The last attempt failed, or the connection was lost.
    Failed(BrokerFailure),
}

/// The state of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Whether it is connected.
    pub connection: ConnectionState,
    /// How many claimed bindings the broker has.
    pub applied: u32,
    /// The ACLs that no policy claims.
    pub unmanaged: BindingList,
    /// The bindings that policies applied and the broker has lost.
    pub missing: BindingList,
    /// How many bindings were found missing since the session began.
    pub drift_found: u64,
    /// How many of them were created again.
    pub drift_repaired: u64,
    /// How often a namespace stopped consuming as a group.
    pub groups_released: u64,
    /// Rights of policies that do not exist any more, which wait for the word of the platform.
    pub held_back: Option<HeldBack>,
}

impl State {
    /// Whether the first attempt to connect has ended, in whatever way.
    #[must_use]
    pub fn has_result(&self) -> bool {
        self.connection != ConnectionState::Connecting
    }

    /// The ID of the cluster, if the broker answers.
    #[must_use]
    pub fn cluster(&self) -> Option<&String> {
        match &self.connection {
            ConnectionState::Connected(facts) => facts.cluster_id.as_ref(),
            _ => None,
        }
    }

    /// Whether the broker answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.connection, ConnectionState::Connected(_))
    }

    /// Whether the operator may change ACLs.
    #[must_use]
    pub fn may_change(&self) -> bool {
        matches!(&self.connection, ConnectionState::Connected(facts) if facts.may_alter)
    }
}

//! What kinds have to tell each other. A kind emits signals; the table in `wakes.rs` says who is woken by them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::name::{Name, ObjectRef};

/// Something that other objects may depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A trust domain was created or deleted, or its spec changed.
    TrustDomainChanged(Arc<str>),
    /// A trust domain signs with another authority, or with none any more.
    AuthorityChanged(Arc<str>),
    /// An identity was created or deleted, or its spec, its labels or its `Accepted` condition
    /// changed. Not when it becomes Ready.
    IdentityChanged(Name),
    /// An identity was deleted, or is being deleted.
    IdentityDeleted,
    /// The broker credentials of an identity changed.
    AccountsChanged(Name),
    /// The login of an identity at a broker was answered after the reconcile had ended.
    LoginAnswered(Name),
    /// A rotation policy was created or deleted, or its spec changed.
    RotationPolicyChanged(Name),
    /// An object was renewed for a rotation policy, or is about to be.
    RotationProgressed(Name),
    /// A broker connection was created or deleted, its spec changed, or its session was replaced.
    BrokerChanged(Arc<str>),
    /// The session with a broker reports something new.
    BrokerReported(Arc<str>),
    /// A broker can be used again.
    BrokerUp(Arc<str>),
    /// A broker has lost ACLs that cannot be restored.
    BrokerLostGrants(Arc<str>),
    /// A namespace does not consume as a group any more that another one may wait for.
    GroupsReleased(Arc<str>),
    /// A topic policy was deleted.
    TopicPolicyDeleted,
    /// A webhook was created or deleted, or its spec or its labels changed.
    WebhookChanged(Name),
    /// A namespace was created or deleted, or its labels changed.
    NamespaceChanged(Arc<str>),
    /// A Secret of the operator's namespace was created, changed or deleted.
    OperatorSecretChanged(Arc<str>),
    /// A Secret that its owner labelled for webhooks was created, changed or deleted.
    KeySecretChanged(Name),
    /// A Service was created or deleted, or is reached in another way.
    ServiceChanged(Name),
    /// Another object may hold a name now that this one claims.
    ClaimsChanged(ObjectRef),
    /// A Secret or ConfigMap that was written for this object was changed or deleted.
    WrittenChanged(ObjectRef),
    /// A replica of the edge appeared or disappeared.
    ReplicasChanged,
    /// A replica of the edge serves these webhooks, named by UID, other than before.
    RoutesServed(BTreeSet<String>),
    /// A replica of the token issuer appeared or disappeared.
    IssuerReplicasChanged,
    /// A replica of the token issuer serves these trust domains, named by UID, other than before.
    IssuersServed(BTreeSet<String>),
    /// The wall clock was set.
    ClockSet,
}

impl Signal {
    /// Whether what has refused an object may accept it now: the broker or the authority is another one, or can be used again. Only
    /// the platform can cause such a signal.
    #[must_use]
    pub fn gives_another_chance(&self) -> bool {
        matches!(
            self,
            Self::BrokerUp(_) | Self::BrokerChanged(_) | Self::AuthorityChanged(_) | Self::TrustDomainChanged(_)
        )
    }
}

/// Where signals go.
#[derive(Clone)]
pub struct Signals(Arc<dyn Fn(Signal) + Send + Sync>);

impl Signals {
    /// Signals that go to this listener.
    pub fn new(listener: impl Fn(Signal) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Emits a signal. The listener only queues objects, so this never waits.
    pub fn emit(&self, signal: Signal) {
        (self.0)(signal);
    }
}

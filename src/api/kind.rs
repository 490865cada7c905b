//! What every kind has in common, and the list of all kinds.

use std::any::TypeId;
use std::fmt::{self, Debug};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::object::HasStatus;
use kube::{CustomResourceExt, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    BrokerConnection, BrokerConnectionStatus, RotationPolicy, RotationPolicyStatus, ServiceIdentity,
    ServiceIdentityStatus, TopicPolicy, TopicPolicyStatus, TrustDomain, TrustDomainStatus, WebhookDestination,
    WebhookEndpoint, WebhookStatus,
};

/// A custom resource of Credence.
pub trait Kind:
    Resource<DynamicType = ()>
    + HasStatus<Status: Status>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    /// Which kind it is.
    const KIND: KindName;

    /// The conditions in the status; none before the first reconcile.
    fn conditions(&self) -> &[Condition] {
        self.status().map(Status::conditions).unwrap_or_default()
    }

    /// Whether the condition `Ready` is True.
    fn is_ready(&self) -> bool {
        self.conditions().iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

/// What the status of every kind has.
pub trait Status: Serialize + PartialEq + Clone + Default + Send + Sync + 'static {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];

    /// Replaces the conditions, and the generation of the spec that they are about.
    fn set_conditions(&mut self, generation: Option<i64>, conditions: Vec<Condition>);
}

macro_rules! kinds {
    ($($kind:ident => $controller:literal,)+) => {
        /// The name of a kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each is documented as a type")]
        pub enum KindName { $($kind,)+ }

        impl KindName {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The name in manifests.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)+ }
            }

            /// The name of its controller in logs, metrics and `/readyz`.
            #[must_use]
            pub fn controller(self) -> &'static str {
                match self { $(Self::$kind => $controller,)+ }
            }

            /// The kind of this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
            }

            /// Whether its objects are in namespaces.
            #[must_use]
            pub fn is_namespaced(self) -> bool {
                let scope = match self { $(Self::$kind => TypeId::of::<<$kind as Resource>::Scope>(),)+ };
                scope == TypeId::of::<NamespaceResourceScope>()
            }

            /// Its CRD, as derived from the types.
            pub(super) fn crd(self) -> CustomResourceDefinition {
                match self { $(Self::$kind => $kind::crd(),)+ }
            }
        }

        $(impl Kind for $kind {
            const KIND: KindName = KindName::$kind;
        })+
    };
}

kinds! {
    TrustDomain => "trust_domain",
    ServiceIdentity => "service_identity",
    RotationPolicy => "rotation_policy",
    BrokerConnection => "broker_connection",
    TopicPolicy => "topic_policy",
    WebhookEndpoint => "webhook_endpoint",
    WebhookDestination => "webhook_destination",
}

impl fmt::Display for KindName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

macro_rules! statuses {
    ($($status:ident,)+) => {
        $(impl Status for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }

            fn set_conditions(&mut self, generation: Option<i64>, conditions: Vec<Condition>) {
                self.observed_generation = generation;
                self.conditions = conditions;
            }
        })+
    };
}

statuses! {
    TrustDomainStatus,
    ServiceIdentityStatus,
    RotationPolicyStatus,
    BrokerConnectionStatus,
    TopicPolicyStatus,
    WebhookStatus,
}

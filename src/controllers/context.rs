//! What every controller can see and use.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::Client;
use kube::core::PartialObjectMeta;

use super::claims::NameClaims;
use super::edges::Edges;
use super::gate::RotationGate;
use super::gauges::Counted;
use super::material::{BundleFacts, MaterialFacts, WebhookFacts};
use super::service_identity::Logins;
use super::webhook::Gone;
use super::wiring::Seen;
use crate::api::{
    BrokerConnection, BrokerConnectionStatus, RotationPolicy, RotationPolicyStatus, ServiceIdentity,
    ServiceIdentityStatus, TopicPolicy, TopicPolicyStatus, TrustDomain, TrustDomainStatus, WebhookDestination,
    WebhookEndpoint, WebhookStatus,
};
use crate::brokers::registry::Brokers;
use crate::domain::fence::Fence;
use crate::domain::selector::Labels;
use crate::issuers::authority::SigningAuthority;
use crate::kubernetes::events::Events;
use crate::kubernetes::owned::Owned;
use crate::kubernetes::run::Trigger;
use crate::kubernetes::status::StatusWriter;
use crate::kubernetes::store::Store;
use crate::metrics::Metrics;

/// What the operator was told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace that the operator runs in; Secrets of cluster-wide objects live there.
    pub namespace: String,
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
    /// Namespace of the edge; `None` when there is none.
    pub edge_namespace: Option<String>,
    /// How often a broker is compared with what was applied.
    pub broker_resync: Duration,
}

/// One store per kind, kept by the watches.
#[derive(Default)]
#[allow(missing_docs, reason = "one per kind")]
pub struct Stores {
    pub trust_domains: Store<TrustDomain>,
    pub identities: Store<ServiceIdentity>,
    pub rotation_policies: Store<RotationPolicy>,
    pub brokers: Store<BrokerConnection>,
    pub topic_policies: Store<TopicPolicy>,
    pub webhook_endpoints: Store<WebhookEndpoint>,
    pub webhook_destinations: Store<WebhookDestination>,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Secrets whose owners give them to webhooks, metadata only.
    pub key_secrets: Store<PartialObjectMeta<Secret>>,
    /// Secrets of the operator's namespace, metadata only.
    pub operator_secrets: Store<PartialObjectMeta<Secret>>,
}

/// Ways to ask each controller to look again.
#[derive(Clone)]
#[allow(missing_docs, reason = "one per kind")]
pub struct Triggers {
    pub trust_domains: Trigger,
    pub identities: Trigger,
    pub rotation_policies: Trigger,
    pub brokers: Trigger,
    pub topic_policies: Trigger,
    pub webhook_endpoints: Trigger,
    pub webhook_destinations: Trigger,
}

/// One writer of status per kind.
#[derive(Default)]
#[allow(missing_docs, reason = "one per kind")]
pub struct Statuses {
    pub trust_domains: StatusWriter<TrustDomainStatus>,
    pub identities: StatusWriter<ServiceIdentityStatus>,
    pub rotation_policies: StatusWriter<RotationPolicyStatus>,
    pub brokers: StatusWriter<BrokerConnectionStatus>,
    pub topic_policies: StatusWriter<TopicPolicyStatus>,
    pub webhook_endpoints: StatusWriter<WebhookStatus>,
    pub webhook_destinations: StatusWriter<WebhookStatus>,
}

/// What was last seen of each kind, as far as other objects depend on it.
#[derive(Default)]
#[allow(missing_docs, reason = "one per kind")]
pub struct SeenFacts {
    pub trust_domains: Seen,
    pub identities: Seen,
    /// The credentials of identities, for who uses their accounts.
    pub accounts: Seen,
    pub rotation_policies: Seen,
    pub brokers: Seen,
    pub webhooks: Seen,
    pub namespaces: Seen,
}

/// An authority in force.
pub struct ActiveAuthority {
    /// The authority.
    pub signer: SigningAuthority,
    /// What it was loaded from; it is loaded again when this changes.
    pub source: String,
}

/// The authorities of all trust domains.
#[derive(Default)]
pub struct Authorities(RwLock<HashMap<String, Arc<ActiveAuthority>>>);

impl Authorities {
    /// The authority of a trust domain, by the name of the object.
    pub fn get(&self, trust_domain: &str) -> Option<Arc<ActiveAuthority>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(trust_domain).cloned()
    }

    /// Replaces the authority of a trust domain.
    pub fn set(&self, trust_domain: &str, authority: ActiveAuthority) -> Arc<ActiveAuthority> {
        let authority = Arc::new(authority);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(trust_domain.to_owned(), authority.clone());
        authority
    }

    /// Takes the authority out of use. Says whether there was one.
    pub fn remove(&self, trust_domain: &str) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(trust_domain).is_some()
    }
}

/// What every controller can see and use.
#[allow(missing_docs, reason = "the types say it")]
pub struct Context {
    pub client: Client,
    pub fence: Fence,
    pub settings: Settings,
    pub stores: Stores,
    pub triggers: Triggers,
    pub statuses: Statuses,
    pub secrets: Owned<Secret, MaterialFacts>,
    pub config_maps: Owned<ConfigMap, BundleFacts>,
    pub webhook_secrets: Owned<Secret, WebhookFacts>,
    pub edges: Edges,
    pub gone_webhooks: Gone,
    pub authorities: Authorities,
    pub brokers: Brokers,
    pub claims: NameClaims,
    pub seen: SeenFacts,
    pub gate: RotationGate,
    pub logins: Logins,
    pub counted: Counted,
    pub events: Events,
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// The labels of a namespace; `None` when it does not exist.
    pub fn namespace_labels(&self, namespace: &str) -> Option<Labels> {
        let found = self.stores.namespaces.get(None, namespace)?;
        Some(found.metadata.labels.unwrap_or_default())
    }

    /// Whether a namespace is being deleted.
    pub fn is_terminating(&self, namespace: Option<&str>) -> bool {
        let found = self.stores.namespaces.get(None, namespace.unwrap_or_default());
        found.is_some_and(|found| found.metadata.deletion_timestamp.is_some())
    }
}

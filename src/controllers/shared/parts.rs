//! What controllers are built from. A controller takes what it uses, and keeps nothing else.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::core::PartialObjectMeta;

use super::authorities::Authorities;
use super::claims::NameClaims;
use super::gate::RotationGate;
use super::handle::Handles;
use super::material::{BundleFacts, WebhookFacts};
use super::name_records::NameRecords;
use super::namespaces::Namespaces;
use super::replicas::Replicas;
use super::services::Services;
use super::signal::Signals;
use super::sweep::SweepSignal;
use super::token_calls::{TokenCalls, TokenSecrets};
use crate::brokers::registry::Brokers;
use crate::controllers::settings::Settings;
use crate::domain::fence::Fence;
use crate::domain::rotation::Material;
use crate::kubernetes::events::Events;
use crate::kubernetes::owned::Owned;
use crate::kubernetes::store::Store;
use crate::kubernetes::watch::Listing;
use crate::metrics::Metrics;

/// Secrets with certificates.
pub type Certificates = Arc<Owned<Secret, Material>>;
/// ConfigMaps with trust bundles.
pub type Bundles = Arc<Owned<ConfigMap, BundleFacts>>;
/// Secrets of webhooks: their keys and their routes.
pub type WebhookSecrets = Arc<Owned<Secret, WebhookFacts>>;
/// Secrets of the operator's namespace, metadata only.
pub type OperatorSecrets = Store<PartialObjectMeta<Secret>>;

/// Everything that a controller may use. Cheap to clone; all clones share one state.
#[derive(Clone)]
#[allow(missing_docs, reason = "the types are documented")]
pub struct Parts {
    pub client: Client,
    pub fence: Fence,
    pub settings: Arc<Settings>,
    pub metrics: Arc<Metrics>,
    pub events: Events,
    pub signals: Signals,
    pub handles: Handles,
    pub listing: Listing,
    /// Since when the operator keeps records of its own.
    pub records_since: Timestamp,
    pub claims: Arc<NameClaims>,
    pub namespaces: Namespaces,
    pub operator_secrets: OperatorSecrets,
    pub certificates: Certificates,
    pub bundles: Bundles,
    pub webhook_secrets: WebhookSecrets,
    pub token_secrets: TokenSecrets,
    pub token_calls: Arc<TokenCalls>,
    pub replicas: Arc<Replicas>,
    /// The replicas of the token issuer.
    pub issuer_replicas: Arc<Replicas>,
    pub services: Arc<Services>,
    pub sweep: SweepSignal,
    pub authorities: Arc<Authorities>,
    pub brokers: Arc<Brokers>,
    pub gate: Arc<RotationGate>,
}

impl Parts {
    /// Parts with nothing in them yet.
    #[must_use]
    pub fn new(
        client: Client,
        fence: Fence,
        settings: Settings,
        metrics: Arc<Metrics>,
        signals: Signals,
        (listing, records_since, names): (Listing, Timestamp, NameRecords),
    ) -> Self {
        let events = Events::new(client.clone());
        let handles = Handles::new(client.clone(), events.clone());
        let token_secrets: TokenSecrets = Arc::new(Owned::new(client.clone()));
        let token_calls = TokenCalls::new(token_secrets.clone(), handles.of(), settings.tokens_namespace.as_deref());
        Self {
            handles,
            token_secrets,
            token_calls: Arc::new(token_calls),
            claims: Arc::new(NameClaims::new(names)),
            listing,
            records_since,
            namespaces: Namespaces::default(),
            operator_secrets: Store::default(),
            certificates: Arc::new(Owned::new(client.clone())),
            bundles: Arc::new(Owned::new(client.clone())),
            webhook_secrets: Arc::new(Owned::new(client.clone())),
            replicas: Arc::default(),
            issuer_replicas: Arc::default(),
            services: Arc::default(),
            sweep: SweepSignal::default(),
            authorities: Arc::default(),
            brokers: Arc::default(),
            gate: Arc::default(),
            settings: Arc::new(settings),
            client,
            fence,
            metrics,
            events,
            signals,
        }
    }
}

//! Watches the Secrets of the edge's namespace: the routes, and the edge's certificates. The edge asks the API server for nothing
//! else.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client, ResourceExt};

use super::gateway::Gateway;
use crate::contract::component::{self, Component};
use crate::contract::route::{ROUTE_ENTRY, RouteDocument};
use crate::edge::front::{certificate, serving};
use crate::kubernetes::health::Health;
use crate::kubernetes::watch::{Interruptions, config};

/// The watches, as readiness and metrics name them.
const ROUTES: &str = "routes";
const CERTIFICATE: &str = "certificate";
const SERVING_CERTIFICATES: &str = "serving_certificates";
/// The watches that must have listed everything before the edge is ready. It is ready without a serving certificate that is
/// missing or invalid: the others, and what services of the cluster send, need not wait for it.
pub const PARTS: [&str; 3] = [ROUTES, CERTIFICATE, SERVING_CERTIFICATES];
/// The type of the Secrets with serving certificates.
const TLS_SECRETS: &str = "type=kubernetes.io/tls";

/// The Secrets with the certificates of the edge.
pub struct CertificateSecrets {
    /// The one with the edge's own.
    pub own: String,
    /// Those that callers are shown, the preferred one first.
    pub serving: Vec<String>,
}

/// Follows routes and certificates for ever.
pub async fn follow(
    gateway: &Gateway,
    client: Client,
    namespace: &str,
    certificates: &CertificateSecrets,
    health: Arc<Health>,
) {
    let metrics = gateway.metrics.clone();
    let count = Arc::new(move |part| metrics.watch_interrupted(part));
    let interruptions = Interruptions { count, health: health.clone() };
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let labelled = config().labels(&component::selector(&[Component::WebhookRoute]));
    let watched = secrets.clone();
    let routes = interruptions.clone().retry_forever(ROUTES, move || watcher(watched.clone(), labelled.clone()));
    let named = config().fields(&format!("metadata.name={}", certificates.own));
    let watched = secrets.clone();
    let own = interruptions.clone().retry_forever(CERTIFICATE, move || watcher(watched.clone(), named.clone()));
    let install = |loaded: &_| gateway.use_certificate(loaded);
    tokio::join!(
        follow_routes(gateway, routes, &health),
        certificate::follow(own, install, || health.started(CERTIFICATE)),
        follow_serving(gateway, secrets, &certificates.serving, interruptions, &health),
    );
}

async fn follow_serving(
    gateway: &Gateway,
    secrets: Api<Secret>,
    names: &[String],
    interruptions: Interruptions,
    health: &Health,
) {
    let listed = || health.started(SERVING_CERTIFICATES);
    if names.is_empty() {
        return listed();
    }
    for name in names {
        gateway.metrics.front.serving_certificate_expires(name, 0);
    }
    let show = |place: usize, chain: &[u8], key: &[u8]| gateway.show_certificate(place, &names[place], [chain, key]);
    let events = interruptions
        .retry_forever(SERVING_CERTIFICATES, move || watcher(secrets.clone(), config().fields(TLS_SECRETS)));
    serving::follow(events, names, show, listed).await;
}

async fn follow_routes(gateway: &Gateway, events: impl Stream<Item = Event<Secret>>, health: &Health) {
    pin_mut!(events);
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(secret) => {
                listed.extend(document(&secret).map(|document| (secret.name_any(), document)));
            }
            Event::InitDone => {
                gateway.routes.replace(&std::mem::take(&mut listed));
                health.started(ROUTES);
            }
            Event::Apply(secret) => gateway.routes.set(&secret.name_any(), document(&secret).as_ref()),
            Event::Delete(secret) => gateway.routes.set(&secret.name_any(), None),
        }
        gateway.metrics.endpoints(gateway.routes.load().iter().count());
    }
}

fn document(secret: &Secret) -> Option<RouteDocument> {
    let entry = secret.data.as_ref().and_then(|data| data.get(ROUTE_ENTRY));
    let document = entry.and_then(|entry| serde_json::from_slice(&entry.0).ok());
    if document.is_none() {
        // The parser's error is not logged: it could quote a key.
        tracing::error!(secret = secret.name_any(), "invalid route document; not serving it");
    }
    document
}

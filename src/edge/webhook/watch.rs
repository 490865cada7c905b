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
use crate::edge::certificates;
use crate::edge::role::CertificateSecrets;
use crate::kubernetes::health::Health;
use crate::kubernetes::watch::{Interruptions, config};

/// The watch of the routes, as readiness and metrics name it. It must have listed everything before the edge is ready.
pub const ROUTES: &str = "routes";

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
    tokio::join!(
        follow_routes(gateway, routes, &health),
        certificates::follow(gateway, secrets, certificates, interruptions, &health),
    );
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

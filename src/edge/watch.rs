//! How the edge learns what to serve: it watches Secrets of its own namespace, and asks the API server for nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client, ResourceExt};

use super::Edge;
use crate::contract::component::{self, Component};
use crate::contract::route::{ROUTE_ENTRY, RouteDocument};
use crate::kubernetes::health::Health;
use crate::kubernetes::watch::{Interruptions, config};

/// The parts that must be at work before the edge is.
pub const PARTS: [&str; 2] = ["routes", "certificate"];

/// Follows routes and the certificate for ever.
pub async fn follow(edge: &Edge, client: Client, namespace: &str, certificate: &str, health: Arc<Health>) {
    let [routes_part, certificate_part] = PARTS;
    let metrics = edge.metrics.clone();
    let count = Arc::new(move |part| metrics.watch_interrupted(part));
    let interruptions = Interruptions { count, health: health.clone() };
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let selector = component::selector(&[Component::WebhookRoute]);
    let routes = watcher(secrets.clone(), config().labels(&selector));
    let routes = interruptions.clone().outlive(routes_part, routes);
    let own = watcher(secrets, config().fields(&format!("metadata.name={certificate}")));
    let own = interruptions.outlive(certificate_part, own);
    tokio::join!(follow_routes(edge, routes, &health), follow_certificate(edge, own, &health));
}

async fn follow_routes(edge: &Edge, events: impl Stream<Item = Event<Secret>>, health: &Health) {
    pin_mut!(events);
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(secret) => {
                listed.extend(document(&secret).map(|document| (secret.name_any(), document)));
            }
            Event::InitDone => {
                edge.routes.replace(&std::mem::take(&mut listed));
                health.started(PARTS[0]);
            }
            Event::Apply(secret) => edge.routes.set(&secret.name_any(), document(&secret).as_ref()),
            Event::Delete(secret) => edge.routes.set(&secret.name_any(), None),
        }
        edge.metrics.endpoints(edge.routes.load().iter().count());
    }
}

fn document(secret: &Secret) -> Option<RouteDocument> {
    let entry = secret.data.as_ref().and_then(|data| data.get(ROUTE_ENTRY));
    let document = entry.and_then(|entry| serde_json::from_slice(&entry.0).ok());
    if document.is_none() {
        // What the parser says could quote a key.
        tracing::error!(secret = secret.name_any(), "a route cannot be read, and is not served");
    }
    document
}

async fn follow_certificate(edge: &Edge, events: impl Stream<Item = Event<Secret>>, health: &Health) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let (Event::Apply(secret) | Event::InitApply(secret)) = event else { continue };
        let entry = |name| secret.data.as_ref().and_then(|data| data.get(name)).map(|entry| entry.0.as_slice());
        let text = |name| entry(name).unwrap_or_default();
        match edge.credentials.take(text("tls.crt"), text("tls.key"), text("ca.crt")) {
            Ok(expiry) => {
                edge.metrics.certificate_expires(expiry);
                tracing::info!(secret = secret.name_any(), "the certificate is in force");
                health.started(PARTS[1]);
            }
            Err(why) => tracing::error!(secret = secret.name_any(), why, "the certificate cannot be used"),
        }
    }
}

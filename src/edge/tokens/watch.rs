//! Watches the Secrets of the issuer's namespace: the trust domains with their keys, the calls, and its certificate. The issuer asks
//! the API server for nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;

use super::issuer::Issuer;
use super::key_sets::KeySets;
use super::service::TokenService;
use crate::contract::component::{self, Component};
use crate::contract::tokens::{CALLS_ENTRY, ISSUER_ENTRY, IssuerDocument};
use crate::edge::certificates;
use crate::edge::role::CertificateSecrets;
use crate::kubernetes::health::Health;
use crate::kubernetes::watch::{Interruptions, config};

/// The watches, as readiness and metrics name them.
const ISSUERS: &str = "issuers";
const CALLS: &str = "calls";
/// The watches that must have listed everything before the issuer is ready.
pub const PARTS: [&str; 2] = [ISSUERS, CALLS];

/// Follows everything for ever.
pub async fn follow(
    service: &Arc<TokenService>,
    client: Client,
    namespace: &str,
    names: &CertificateSecrets,
    key_sets: &KeySets,
    health: Arc<Health>,
) {
    let counted = service.clone();
    let count = Arc::new(move |part| counted.metrics.watch_interrupted(part));
    let interruptions = Interruptions { count, health: health.clone() };
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let labelled = |part: &'static str, component: Component| {
        let (secrets, config) = (secrets.clone(), config().labels(&component::selector(&[component])));
        interruptions.clone().retry_forever(part, move || watcher(secrets.clone(), config.clone()))
    };
    let (issuers, calls) = (labelled(ISSUERS, Component::TokenIssuer), labelled(CALLS, Component::TokenCalls));
    let set_issuer = |secret: &str, document| service.set_issuer(secret, compile(secret, document, key_sets));
    tokio::join!(
        follow_documents(issuers, ISSUER_ENTRY, set_issuer, || {
            service.issuers_listed();
            health.started(ISSUERS);
        }),
        follow_documents(
            calls,
            CALLS_ENTRY,
            |secret, document| service.set_calls(secret, document),
            || {
                health.started(CALLS);
            }
        ),
        certificates::follow(&**service, secrets.clone(), names, interruptions.clone(), &health),
    );
}

fn compile(secret: &str, document: Option<IssuerDocument>, key_sets: &KeySets) -> Option<Issuer> {
    let compiled = document.map(|document| Issuer::compile(&document, key_sets))?;
    compiled.inspect_err(|error| tracing::error!(secret, %error, "invalid issuer; not serving it")).ok()
}

/// Hands each document to `set`, by the name of its Secret, and `None` when it is gone. Calls `listed` after each complete list.
async fn follow_documents<D: DeserializeOwned>(
    events: impl Stream<Item = Event<Secret>>,
    entry: &str,
    set: impl Fn(&str, Option<D>),
    listed: impl Fn(),
) {
    pin_mut!(events);
    let (mut known, mut seen) = (BTreeSet::new(), BTreeSet::new());
    while let Some(event) = events.next().await {
        match event {
            Event::Init => seen.clear(),
            Event::Apply(secret) | Event::InitApply(secret) => {
                let name = secret.name_any();
                set(&name, document(&secret, entry));
                seen.insert(name.clone());
                known.insert(name);
            }
            Event::Delete(secret) => {
                set(&secret.name_any(), None);
                known.remove(&secret.name_any());
            }
            Event::InitDone => {
                known.difference(&seen).for_each(|gone| set(gone, None));
                known = std::mem::take(&mut seen);
                listed();
            }
        }
    }
}

fn document<D: DeserializeOwned>(secret: &Secret, entry: &str) -> Option<D> {
    let entry = secret.data.as_ref().and_then(|data| data.get(entry));
    let document = entry.and_then(|entry| serde_json::from_slice(&entry.0).ok());
    if document.is_none() {
        // The parser's error is not logged: it could quote a key.
        tracing::error!(secret = secret.name_any(), "invalid document; not using it");
    }
    document
}

//! Publishes the trust bundle: one ConfigMap in every selected namespace.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;

use super::controller::Controller;
use super::observe::Observed;
use crate::api::Reason;
use crate::contract::component::Component;
use crate::controllers::shared::authorities::ActiveAuthority;
use crate::controllers::shared::material::BundleFacts;
use crate::domain::altered::AlteredBy;
use crate::kubernetes::error::Error;
use crate::kubernetes::owned::Contended;
use crate::kubernetes::run::Next;
use crate::kubernetes::{kept_metadata, uid};

/// How many namespaces are written to at the same time.
const FAN_OUT: usize = 32;
/// How many namespaces are named in an event.
const NAMED: usize = 20;

/// How publishing went.
pub struct Publication {
    /// Name of the ConfigMap.
    pub config_map: String,
    /// The namespaces without the bundle, each with the cause.
    pub lagging: Vec<String>,
    /// When to look again at a ConfigMap that somebody else keeps changing.
    pub next: Next,
}

/// A ConfigMap that was changed or deleted by somebody else and is written again.
struct Repair<'a> {
    namespace: &'a str,
    /// The field manager that changed it; `None` when it was deleted.
    alterer: Option<&'a AlteredBy>,
}

/// Writes the bundle to every selected namespace, and deletes ours from the others.
pub async fn publish(controller: &Controller, observed: &Observed, active: &ActiveAuthority) -> Publication {
    let bundles = &controller.bundles;
    let name = format!("{}-trust-bundle", observed.name());
    let hash = &active.signer.bundle_hash;
    let (now, owner) = (Instant::now(), uid(&*observed.domain));
    let mut next = None;
    let mut lagging = Vec::new();
    let mut repairs = Vec::new();
    let mut writes = Vec::new();
    for namespace in &observed.selected {
        let stored = observed.published.get(namespace);
        let is_current = stored.is_some_and(|stored| stored.as_ref() == Ok(hash));
        let alterer = stored.and_then(|stored| stored.as_ref().err());
        let is_disturbed = alterer.is_some() || (stored.is_none() && bundles.was_deleted(namespace, &name, &owner));
        let place = (namespace.as_str(), name.as_str(), owner.as_str());
        let held_back = is_disturbed.then(|| bundles.held_back(place, now)).flatten();
        let is_held_back = held_back.is_some();
        if let Some(Contended { message, wait }) = held_back.or_else(|| bundles.contended(place, now)) {
            lagging.push(message);
            next = next.into_iter().chain([wait]).min();
        }
        if is_current || is_held_back {
            continue;
        }
        if is_disturbed {
            repairs.push(Repair { namespace, alterer });
        }
        let facts = BundleFacts(hash.clone());
        let domain = &*observed.domain;
        let config_map = ConfigMap {
            metadata: kept_metadata(domain, namespace, &name, Component::TrustBundle, facts.annotations()),
            data: Some(BTreeMap::from([("ca.crt".to_owned(), active.signer.bundle_pem.clone())])),
            ..ConfigMap::default()
        };
        writes.push(async move {
            let written = bundles.put(&config_map).await;
            written.err().map(|error| format!("{namespace}: {error}"))
        });
    }
    let written: Vec<Option<String>> = stream::iter(writes).buffer_unordered(FAN_OUT).collect().await;
    lagging.extend(written.into_iter().flatten());
    let surplus = observed.published.keys().filter(|namespace| !observed.selected.contains(*namespace));
    let removals: Vec<_> = surplus.map(|namespace| bundles.delete(namespace, &name, Some(&owner))).collect();
    let removed: Vec<Result<(), Error>> = stream::iter(removals).buffer_unordered(FAN_OUT).collect().await;
    lagging.extend(removed.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    lagging.sort();
    report_repairs(controller, observed, &name, &repairs).await;
    Publication { config_map: name, lagging, next }
}

/// Reports repairs once, and remembers them, in case somebody keeps changing the ConfigMaps.
async fn report_repairs(controller: &Controller, observed: &Observed, name: &str, repairs: &[Repair<'_>]) {
    let (now, owner) = (Instant::now(), uid(&*observed.domain));
    for Repair { namespace, alterer } in repairs {
        controller.bundles.repaired((namespace, name, &owner), *alterer, now);
        controller.metrics.kubernetes_repaired("ConfigMap");
    }
    let is_contended =
        |repair: &&Repair<'_>| controller.bundles.contended((repair.namespace, name, &owner), now).is_some();
    let (mut changed, mut deleted) = (Vec::new(), Vec::new());
    for Repair { namespace, alterer } in repairs.iter().filter(|repair| !is_contended(repair)).take(NAMED) {
        match alterer {
            Some(alterer) => changed.push(format!("{namespace} (changed by {alterer})")),
            None => deleted.push(format!("{namespace} (deleted)")),
        }
    }
    for (action, namespaces) in [("RepairChanged", changed), ("RepairDeleted", deleted)] {
        if !namespaces.is_empty() {
            let note = format!("repaired the ConfigMap {name} in {}", namespaces.join(", "));
            controller.events.warning(&*observed.domain, Reason::DriftRepaired, action, note).await;
        }
    }
}

//! Publishes the trust bundle: one ConfigMap in every selected namespace.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;

use super::super::context::{ActiveAuthority, Context};
use super::super::material::BundleFacts;
use super::observe::Observed;
use super::plan::BUNDLE;
use crate::api::{BundleStatus, ConditionType, Conditions, Reason, TrustDomain, TrustDomainStatus};
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Next;
use crate::kubernetes::{owned_metadata, uid};

/// How many namespaces are given a bundle at the same time.
const FAN_OUT: usize = 32;
/// How many namespaces are named in status, and in an event.
const NAMED: usize = 20;

/// Gives every selected namespace the bundle, and takes back ours from where it is not selected any more. Says when to
/// look again at one that somebody else keeps changing.
pub async fn publish(
    context: &Context,
    domain: &TrustDomain,
    observed: &Observed,
    active: &ActiveAuthority,
    status: &mut TrustDomainStatus,
    conditions: &mut Conditions,
) -> Next {
    let name = format!("{}-trust-bundle", domain.metadata.name.as_deref().unwrap_or_default());
    let hash = &active.signer.bundle_hash;
    let now = Instant::now();
    let mut next = None;
    let mut lagging = Vec::new();
    let mut repaired = Vec::new();
    let mut writes = Vec::new();
    for namespace in &observed.selected {
        let stands = observed.published.get(namespace);
        let is_current = stands.is_some_and(|stands| stands.as_ref() == Ok(hash));
        let alterer = stands.and_then(|stands| stands.as_ref().err());
        let disturbed = alterer.is_some() || (stands.is_none() && context.config_maps.was_lost(namespace, &name));
        let held = disturbed.then(|| context.config_maps.held_back(namespace, &name, now)).flatten();
        let is_held = held.is_some();
        if let Some((message, pause)) = held.or_else(|| context.config_maps.fight(namespace, &name, now)) {
            lagging.push(message);
            next = next.into_iter().chain([pause]).min();
        }
        if is_current || is_held {
            continue;
        }
        if disturbed {
            repaired.push((namespace, alterer));
        }
        let facts = BundleFacts(hash.clone());
        let config_map = ConfigMap {
            metadata: owned_metadata(domain, namespace, &name, BUNDLE, facts.annotations()),
            data: Some(BTreeMap::from([("ca.crt".to_owned(), active.signer.bundle_pem.clone())])),
            ..ConfigMap::default()
        };
        writes.push(async move {
            let written = context.config_maps.put(&config_map).await;
            written.err().map(|error| format!("{namespace}: {error}"))
        });
    }
    let written: Vec<Option<String>> = stream::iter(writes).buffer_unordered(FAN_OUT).collect().await;
    lagging.extend(written.into_iter().flatten());
    let owner = uid(domain);
    let mut removals = Vec::new();
    for namespace in observed.published.keys().filter(|namespace| !observed.selected.contains(*namespace)) {
        removals.push(context.config_maps.delete(namespace, &name, &owner));
    }
    let removed: Vec<Result<(), Error>> = stream::iter(removals).buffer_unordered(FAN_OUT).collect().await;
    lagging.extend(removed.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    lagging.sort();
    report_repairs(context, domain, &name, &repaired).await;
    let namespaces = observed.selected.len();
    if lagging.is_empty() {
        let message = format!("ConfigMap {name} is in {namespaces} namespaces");
        conditions.met(ConditionType::BundlePublished, Reason::Published, message);
    } else {
        let message = format!("{} of {namespaces} namespaces lack the bundle; first: {}", lagging.len(), lagging[0]);
        conditions.unmet(ConditionType::BundlePublished, Reason::PublishFailed, message);
    }
    lagging.truncate(NAMED);
    status.bundle = Some(BundleStatus {
        config_map_name: name,
        hash: hash.clone(),
        roots: u32::try_from(active.signer.root_count()).unwrap_or(u32::MAX),
        namespaces: u32::try_from(namespaces).unwrap_or(u32::MAX),
        lagging,
    });
    next
}

/// Says once what was put back, and remembers it, in case somebody keeps at it.
async fn report_repairs(context: &Context, domain: &TrustDomain, name: &str, repaired: &[(&String, Option<&String>)]) {
    let now = Instant::now();
    for (namespace, alterer) in repaired {
        context.config_maps.repaired(namespace, name, alterer.map(String::as_str), now);
        context.metrics.kubernetes_repaired("ConfigMap");
    }
    let is_news = |namespace: &str| context.config_maps.fight(namespace, name, now).is_none();
    let tell = async |action: &str, namespaces: Vec<String>| {
        if !namespaces.is_empty() {
            let note = format!("put back the ConfigMap {name} in {}", namespaces.join(", "));
            context.events.warning(domain, Reason::DriftRepaired, action, note).await;
        }
    };
    let news = repaired.iter().filter(|(namespace, _)| is_news(namespace)).take(NAMED);
    let (changed, deleted): (Vec<_>, Vec<_>) = news.partition(|(_, alterer)| alterer.is_some());
    let by = |alterer: Option<&String>| alterer.cloned().unwrap_or_default();
    tell("RepairChanged", changed.iter().map(|(it, alterer)| format!("{it} (changed by {})", by(*alterer))).collect())
        .await;
    tell("RepairDeleted", deleted.iter().map(|(it, _)| format!("{it} (deleted)")).collect()).await;
}

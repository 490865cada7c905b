//! Hands a webhook to the edge, as a Secret in the edge's namespace, and takes it back.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::context::Context;
use super::super::material::WebhookFacts;
use super::observe::{Observed, route_secret};
use super::settle::Keys;
use super::{Webhook, account, keys};
use crate::api::{ConditionType, Conditions, Reason};
use crate::contract::Component;
use crate::contract::route::{FORMAT, ROUTE_ENTRY, RouteDocument, Spec, WebhookReference};
use crate::domain::identity::digest;
use crate::domain::key_set::KeyRecord;
use crate::edge::webhook::address_policy::AddressPolicy;
use crate::edge::webhook::invalid::InvalidRoute;
use crate::edge::webhook::route::Route;
use crate::edge::webhook::routing::RoutingConfig;
use crate::kubernetes::error::Error;
use crate::kubernetes::{COMPONENT, FOR, MANAGED_BY, uid};

/// Hands the route to the edge, when it is another than before. Returns its digest; `None` when it cannot be served.
pub async fn program<W: Webhook>(
    context: &Context,
    webhook: &W,
    observed: &Observed<W>,
    own: &Keys,
    conditions: &mut Conditions,
) -> Result<Option<String>, Error> {
    let Some(edge) = context.settings.edge_namespace.as_deref() else { return Ok(None) };
    if let Some(Err((reason, message))) = &observed.account {
        conditions.unmet(ConditionType::Accepted, *reason, message.clone());
        return Ok(observed.route.clone());
    }
    let source_keys = match webhook.source_secret() {
        None => Vec::new(),
        Some(secret) => match keys::external(context, webhook, secret).await? {
            Ok(found) => found,
            Err(message) => {
                conditions.unmet(ConditionType::KeysReady, Reason::KeysInvalid, message);
                return Ok(None);
            }
        },
    };
    let reference = WebhookReference {
        namespace: webhook.meta().namespace.clone().unwrap_or_default(),
        name: webhook.meta().name.clone().unwrap_or_default(),
        uid: uid(webhook),
        generation: webhook.meta().generation.unwrap_or_default(),
    };
    let spec = webhook.spec();
    let account = observed.account.iter().flatten().next().map(String::as_str);
    let vouched = source_keys.iter().map(|key| &key.record);
    let wanted = digest_of(&reference, &spec, account, own.records.iter(), vouched)?;
    if observed.route.as_ref() == Some(&wanted) {
        return Ok(Some(wanted));
    }
    let material = match &own.material {
        Some(material) => material.clone(),
        None => keys::made(context, webhook, &own.records).await?,
    };
    let document = RouteDocument {
        webhook: reference,
        digest: wanted.clone(),
        spec,
        keys: material.into_iter().map(keys::document::<W>).collect(),
        account: account::read(context, webhook).await?,
        source_keys: source_keys.into_iter().map(keys::document::<W>).collect(),
    };
    // Where destinations may be is the edge's own matter, and judged when it connects.
    let routing = RoutingConfig {
        cluster_domain: context.settings.cluster_domain.clone(),
        service_address: None,
        destinations: AddressPolicy::Public(Arc::from([])),
    };
    if let Err(invalid) = Route::compile(&document, &routing) {
        let (kind, reason) = match &invalid {
            InvalidRoute::Keys(_) => (ConditionType::KeysReady, Reason::KeysInvalid),
            InvalidRoute::Spec(_) => (ConditionType::Accepted, Reason::InvalidSpec),
        };
        conditions.unmet(kind, reason, invalid.to_string());
        return Ok(None);
    }
    context.webhook_secrets.put(&secret(webhook, edge, &document)?).await?;
    Ok(Some(wanted))
}

/// Changes when anything does that the edge has to know; never with what a key is, but with its fingerprint.
fn digest_of<'a>(
    webhook: &WebhookReference,
    spec: &Spec,
    account: Option<&str>,
    own: impl Iterator<Item = &'a KeyRecord>,
    vouched: impl Iterator<Item = &'a KeyRecord>,
) -> Result<String, Error> {
    let spec = serde_json::to_string(spec).map_err(|error| Error::Bug(error.to_string()))?;
    let key = |what: &'static str| {
        move |key: &KeyRecord| format!("{what} {} {} {:?} {:?}", key.id, key.fingerprint, key.not_before, key.not_after)
    };
    let parts = [FORMAT.to_owned(), webhook.generation.to_string(), spec, format!("account {account:?}")];
    let parts = parts.into_iter().chain(own.map(key("key"))).chain(vouched.map(key("source")));
    let parts: Vec<String> = parts.collect();
    Ok(digest(parts.iter().map(String::as_str)))
}

fn secret<W: Webhook>(webhook: &W, edge: &str, document: &RouteDocument) -> Result<Secret, Error> {
    let text = serde_json::to_vec(document).map_err(|error| Error::Bug(error.to_string()))?;
    let facts = WebhookFacts { digest: document.digest.clone(), keys: Vec::new() };
    let mut annotations = facts.annotations()?;
    annotations.insert(FOR.to_owned(), webhook.full_name());
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(route_secret(webhook)),
            namespace: Some(edge.to_owned()),
            labels: Some(BTreeMap::from([
                (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
                (COMPONENT.to_owned(), Component::WebhookRoute.as_str().to_owned()),
            ])),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(ROUTE_ENTRY.to_owned(), ByteString(text))])),
        ..Secret::default()
    })
}

/// Takes the route back, if there is one.
pub async fn withdraw<W: Webhook>(context: &Context, webhook: &W) -> Result<(), Error> {
    match context.settings.edge_namespace.as_deref() {
        Some(edge) => context.webhook_secrets.delete(edge, &route_secret(webhook), "").await,
        None => Ok(()),
    }
}

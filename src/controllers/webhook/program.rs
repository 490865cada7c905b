//! Writes the route of a webhook to the edge's namespace, and withdraws it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::account::{self, Account};
use super::controller::Controller;
use super::keys;
use super::keys::StoredKey;
use super::observe::{Observed, route_secret};
use super::service::Reached;
use super::settle::Keys;
use crate::api::{ConditionType, Conditions, Reason};
use crate::contract::component::{COMPONENT, Component, FOR, MANAGED_BY};
use crate::contract::route::{FORMAT, ROUTE_ENTRY, RouteDocument, ServiceAddress, Spec, WebhookReference};
use crate::controllers::shared::material::WebhookFacts;
use crate::controllers::shared::webhook::Webhook;
use crate::domain::address_policy::AddressPolicy;
use crate::domain::identity::digest;
use crate::domain::key_set::KeyRecord;
use crate::domain::refusal::Refusal;
use crate::edge::webhook::invalid::InvalidRoute;
use crate::edge::webhook::route::Route;
use crate::edge::webhook::routing::{AllowedDestinations, RoutingConfig};
use crate::kubernetes::error::Error;
use crate::kubernetes::uid;

/// Writes the route when it differs from before. Returns its digest; `None` when it cannot be served.
pub async fn program<W: Webhook>(
    controller: &Controller<W>,
    observed: &Observed<W>,
    own: &Keys,
    conditions: &mut Conditions,
) -> Result<Option<String>, Error> {
    let Some(edge) = controller.settings.edge_namespace.as_deref() else { return Ok(None) };
    let webhook = &*observed.webhook;
    if let Some(Err(Refusal { reason, message })) = &observed.account {
        conditions.unmet(ConditionType::Accepted, *reason, message.clone());
        return Ok(observed.route.clone());
    }
    if let Some(Reached::Missing(Refusal { reason, message })) = &observed.service {
        conditions.unmet(ConditionType::Accepted, *reason, message.clone());
    }
    let (mut source_keys, mut assertion_keys) = (Vec::new(), Vec::new());
    let secrets = [(webhook.source_secret(), &mut source_keys), (webhook.assertion_secret(), &mut assertion_keys)];
    for (secret, found) in secrets {
        let Some(secret) = secret else { continue };
        match keys::external(controller, webhook, secret).await? {
            Ok(keys) => *found = keys,
            Err(Refusal { reason, message }) => {
                conditions.unmet(ConditionType::KeysReady, reason, message);
                return Ok(None);
            }
        }
    }
    let reference = WebhookReference {
        namespace: webhook.meta().namespace.clone().unwrap_or_default(),
        name: webhook.meta().name.clone().unwrap_or_default(),
        uid: uid(webhook),
        generation: webhook.meta().generation.unwrap_or_default(),
    };
    let spec = webhook.route_spec();
    let account = observed.account.iter().flatten().next();
    let recorded = [
        ("key", own.records.iter().collect()),
        ("source", records(&source_keys)),
        ("assertion", records(&assertion_keys)),
    ];
    let service = observed.service.as_ref().and_then(Reached::address);
    let wanted = digest_of(&reference, &spec, account.map(Account::digest), service, recorded)?;
    if observed.route.as_ref() == Some(&wanted) {
        return Ok(Some(wanted));
    }
    let material = match &own.material {
        Some(material) => material.clone(),
        None => keys::generated(controller, webhook, &own.records).await?,
    };
    let account = match account::read(controller, webhook, account).await? {
        Ok(account) => account,
        Err(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            return Ok(observed.route.clone());
        }
    };
    let document = RouteDocument {
        webhook: reference,
        digest: wanted.clone(),
        spec,
        keys: material.into_iter().map(keys::document::<W>).collect(),
        account,
        service,
        source_keys: source_keys.into_iter().map(keys::document::<W>).collect(),
        assertion_keys: assertion_keys.into_iter().map(keys::document::<W>).collect(),
    };
    // Where destinations may be is decided by the edge, when it connects.
    let routing = RoutingConfig {
        cluster_domain: controller.settings.cluster_domain.clone(),
        service_address: controller.settings.service_address,
        own_ports: vec![controller.settings.own_port],
        destinations: AllowedDestinations::default(),
        brokers: AddressPolicy::trusted(None),
    };
    if let Err(invalid) = Route::compile(&document, &routing) {
        let (kind, reason) = match &invalid {
            InvalidRoute::Keys(_) => (ConditionType::KeysReady, Reason::KeysInvalid),
            InvalidRoute::Spec(_) => (ConditionType::Accepted, Reason::InvalidSpec),
        };
        conditions.unmet(kind, reason, invalid.to_string());
        return Ok(None);
    }
    controller.secrets.put(&secret(webhook, edge, &document)?).await?;
    Ok(Some(wanted))
}

fn records(keys: &[StoredKey]) -> Vec<&KeyRecord> {
    keys.iter().map(|key| &key.record).collect()
}

/// A digest of everything that the edge has to know; of a key only its fingerprint. The form is stored: another one would
/// write every route again.
fn digest_of(
    webhook: &WebhookReference,
    spec: &Spec,
    account: Option<String>,
    service: Option<ServiceAddress>,
    keys: [(&str, Vec<&KeyRecord>); 3],
) -> Result<String, Error> {
    let spec = serde_json::to_string(spec).map_err(|error| Error::Bug(error.to_string()))?;
    let mut parts = vec![FORMAT.to_owned(), webhook.generation.to_string(), spec, format!("account {account:?}")];
    parts.extend(service.map(|service| format!("service {service:?}")));
    for (what, records) in keys {
        let text =
            |key: &KeyRecord| format!("{what} {} {} {:?} {:?}", key.id, key.fingerprint, key.not_before, key.not_after);
        parts.extend(records.into_iter().map(text));
    }
    Ok(digest(parts.iter().map(String::as_str)))
}

fn secret<W: Webhook>(webhook: &W, edge: &str, document: &RouteDocument) -> Result<Secret, Error> {
    let text = serde_json::to_vec(document).map_err(|error| Error::Bug(error.to_string()))?;
    let facts = WebhookFacts { digest: document.digest.clone(), keys: Vec::new() };
    let mut annotations = facts.annotations()?;
    annotations.insert(
        FOR.to_owned(),
        format!(
            "{}/{}/{}",
            W::KIND,
            webhook.meta().namespace.as_deref().unwrap_or_default(),
            webhook.meta().name.as_deref().unwrap_or_default()
        ),
    );
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

/// Withdraws the route, if there is one.
pub async fn withdraw<W: Webhook>(controller: &Controller<W>, webhook: &W) -> Result<(), Error> {
    match controller.settings.edge_namespace.as_deref() {
        Some(edge) => controller.secrets.delete(edge, &route_secret(webhook), None).await,
        None => Ok(()),
    }
}

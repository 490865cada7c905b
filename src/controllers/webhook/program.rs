//! Writes the route of a webhook to the edge's namespace, and withdraws it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use zeroize::Zeroizing;

use super::account::{self, Account};
use super::controller::Controller;
use super::keys;
use super::observe::{Observed, route_secret};
use super::service::Reached;
use super::settle::Keys;
use super::share;
use super::stored_key::{StoredKey, document as key_document};
use crate::api::{ConditionType, Conditions, Reason};
use crate::contract::component::{COMPONENT, Component, FOR, MANAGED_BY};
use crate::contract::route::{FORMAT, ROUTE_ENTRY, RouteDocument, ServiceAddress, Spec, WebhookReference};
use crate::controllers::shared::material::WebhookFacts;
use crate::controllers::shared::webhook::Webhook;
use crate::domain::address_policy::AddressPolicy;
use crate::domain::identity::digest;
use crate::domain::key_set::{self, KeyRecord};
use crate::domain::refusal::Refusal;
use crate::edge::webhook::invalid::InvalidRoute;
use crate::edge::webhook::route::{KeyUse, Route};
use crate::edge::webhook::routing::{AllowedDestinations, RoutingConfig};
use crate::kubernetes::error::Error;
use crate::kubernetes::uid;

/// What became of a route.
#[derive(Default)]
pub struct Programmed {
    /// Its digest; `None` when it cannot be served.
    pub route: Option<String>,
    /// When a key of others begins or ends next.
    pub next_change: Option<Timestamp>,
}

/// Writes the route when it differs from before. Without a valid key it is written as well: the edge then answers that the webhook
/// cannot be served for now, and knows whose it is.
pub async fn program<W: Webhook>(
    controller: &Controller<W>,
    observed: &Observed<W>,
    own: &Keys,
    conditions: &mut Conditions,
) -> Result<Programmed, Error> {
    let mut programmed = Programmed::default();
    let Some(edge) = controller.settings.edge_namespace.as_deref() else { return Ok(programmed) };
    let webhook = &*observed.webhook;
    if let Some(Err(Refusal { reason, message })) = &observed.account {
        conditions.unmet(ConditionType::Accepted, *reason, message.clone());
        return Ok(Programmed { route: observed.route.clone(), ..programmed });
    }
    if let Some(Reached::Missing(Refusal { reason, message })) = &observed.service {
        conditions.unmet(ConditionType::Accepted, *reason, message.clone());
    }
    let source = (webhook.source_secret(), KeyUse::CallerTokens);
    let source_keys = of_others(controller, observed, source, &mut programmed, conditions).await?;
    let assertion = (webhook.assertion_secret(), KeyUse::Assertions);
    let assertion_keys = of_others(controller, observed, assertion, &mut programmed, conditions).await?;
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
    let account_digest = account.map(Account::digest);
    let service = observed.service.as_ref().and_then(Reached::address);
    let wanted = digest_of(&reference, &spec, account_digest.as_deref(), service, recorded)?;
    if observed.route.as_ref() == Some(&wanted) {
        return Ok(Programmed { route: Some(wanted), ..programmed });
    }
    let material = match &own.material {
        Some(material) => material.clone(),
        None => keys::generated(controller, webhook, &own.records).await?,
    };
    let account = match account::read(controller, webhook, account).await? {
        Ok(account) => account,
        Err(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            return Ok(Programmed { route: observed.route.clone(), ..programmed });
        }
    };
    let mut document = RouteDocument {
        webhook: reference,
        digest: wanted,
        spec,
        keys: material.into_iter().map(key_document::<W>).collect(),
        account,
        service,
        source_keys: source_keys.into_iter().map(key_document::<W>).collect(),
        assertion_keys: assertion_keys.into_iter().map(key_document::<W>).collect(),
    };
    // Where destinations may be is decided by the edge, when it connects.
    let routing = RoutingConfig {
        cluster_domain: controller.settings.cluster_domain.clone(),
        service_address: controller.settings.service_address,
        own_ports: vec![controller.settings.own_port],
        destinations: AllowedDestinations::default(),
        brokers: AddressPolicy::trusted(None),
    };
    match Route::compile(&document, &routing) {
        Ok(_) => {}
        Err(InvalidRoute::Spec(invalid)) => {
            conditions.unmet(ConditionType::Accepted, Reason::InvalidSpec, invalid.to_string());
            return Ok(programmed);
        }
        Err(InvalidRoute::Keys(invalid)) => {
            conditions.unmet(ConditionType::KeysReady, Reason::KeysInvalid, invalid.to_string());
            for keys in [&mut document.keys, &mut document.source_keys, &mut document.assertion_keys] {
                keys.clear();
            }
            let none = [("key", Vec::new()), ("source", Vec::new()), ("assertion", Vec::new())];
            document.digest = digest_of(&document.webhook, &document.spec, account_digest.as_deref(), service, none)?;
        }
    }
    if observed.route.as_ref() == Some(&document.digest) {
        return Ok(Programmed { route: Some(document.digest), ..programmed });
    }
    let text = Zeroizing::new(serde_json::to_vec(&document).map_err(|error| Error::Bug(error.to_string()))?);
    let (namespace, size) = (observed.namespace(), text.len());
    let refuse = |taken| share::refuse(taken, namespace, (observed.route_size, size));
    // As it is now: other routes of the namespace were written meanwhile, or are being written.
    let _room = match controller.secrets.reserve(namespace, size.saturating_sub(observed.route_size), refuse) {
        Ok(room) => room,
        Err(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::Accepted, reason, message);
            return Ok(Programmed { route: observed.route.clone(), ..programmed });
        }
    };
    let facts = WebhookFacts {
        digest: document.digest.clone(),
        size: Some(size),
        by_name: observed.service == Some(Reached::ByName),
        keys: Vec::new(),
    };
    controller.secrets.put(&secret(webhook, edge, &facts, &text)?).await?;
    Ok(Programmed { route: Some(document.digest), ..programmed })
}

/// The keys of others that the webhook needs: of issuers, or those that its target shares. Says in the conditions when none of
/// them is valid.
async fn of_others<W: Webhook>(
    controller: &Controller<W>,
    observed: &Observed<W>,
    (secret, key_use): (Option<&str>, KeyUse),
    programmed: &mut Programmed,
    conditions: &mut Conditions,
) -> Result<Vec<StoredKey>, Error> {
    let Some(secret) = secret else { return Ok(Vec::new()) };
    let found = match keys::external(controller, &*observed.webhook, secret, key_use).await? {
        Ok(found) => found,
        Err(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::KeysReady, reason, message);
            return Ok(Vec::new());
        }
    };
    if let Some(problem) = found.problem(secret) {
        conditions.unmet(ConditionType::KeysReady, Reason::KeysNotUsed, problem);
    }
    let records: Vec<KeyRecord> = found.used.iter().map(|key| key.record.clone()).collect();
    if !records.iter().any(|record| record.is_live(observed.now)) {
        let message = format!("no key of the Secret {secret} is valid now; add one");
        conditions.unmet(ConditionType::KeysReady, Reason::KeysInvalid, message);
    }
    let next = key_set::next_change(&records, observed.now);
    programmed.next_change = programmed.next_change.into_iter().chain(next).min();
    Ok(found.used)
}

fn records(keys: &[StoredKey]) -> Vec<&KeyRecord> {
    keys.iter().map(|key| &key.record).collect()
}

/// A digest of everything that the edge has to know; of a key only its fingerprint. The form is stored: another one would
/// write every route again.
fn digest_of(
    webhook: &WebhookReference,
    spec: &Spec,
    account: Option<&str>,
    service: Option<ServiceAddress>,
    keys: [(&str, Vec<&KeyRecord>); 3],
) -> Result<String, Error> {
    let spec = serde_json::to_string(spec).map_err(|error| Error::Bug(error.to_string()))?;
    let account = optional(account.map(|account| format!("\"{account}\"")));
    let mut parts = vec![FORMAT.to_owned(), webhook.generation.to_string(), spec, format!("account {account}")];
    parts.extend(service.map(|service| format!("service {service}")));
    for (what, records) in keys {
        let text = |key: &KeyRecord| {
            let (begin, end) = (optional(key.not_before), optional(key.not_after));
            format!("{what} {} {} {begin} {end}", key.id, key.fingerprint)
        };
        parts.extend(records.into_iter().map(text));
    }
    Ok(digest(parts.iter().map(String::as_str)))
}

fn optional<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "None".to_owned(), |value| format!("Some({value})"))
}

fn secret<W: Webhook>(webhook: &W, edge: &str, facts: &WebhookFacts, document: &[u8]) -> Result<Secret, Error> {
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
        data: Some(BTreeMap::from([(ROUTE_ENTRY.to_owned(), ByteString(document.to_vec()))])),
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_digest_of_a_route_keeps_its_form() {
        let webhook =
            WebhookReference { namespace: "shop".into(), name: "payments".into(), uid: "u1".into(), generation: 3 };
        let spec = json!({"endpoint": {"path": "/shop/payments", "verification": {"github": {}},
            "target": {"kafka": {"broker": "kafka", "serviceIdentity": "hooks", "topic": "payments"}}}});
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let key = KeyRecord {
            id: "k1".into(),
            fingerprint: "f1".into(),
            public_key: None,
            not_before: Some(Timestamp::from_second(1_767_225_600).unwrap()),
            not_after: None,
            signs_since: None,
        };
        for account in [Some("ab12".to_owned()), None] {
            // As v0.2.0 makes it.
            let stored = [
                FORMAT.to_owned(),
                "3".to_owned(),
                serde_json::to_string(&spec).unwrap(),
                format!("account {account:?}"),
                format!("key k1 f1 {:?} {:?}", key.not_before, key.not_after),
            ];
            let keys = [("key", vec![&key]), ("source", Vec::new()), ("assertion", Vec::new())];
            let made = digest_of(&webhook, &spec, account.as_deref(), None, keys).unwrap();
            assert_eq!(made, digest(stored.iter().map(String::as_str)));
        }
    }
}

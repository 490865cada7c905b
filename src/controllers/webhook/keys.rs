//! The material of keys: generated, stored and read. None of it is kept in memory.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use super::controller::Controller;
use super::external::ExternalKeys;
use super::observe::Observed;
use super::stored_key::{StoredKey, document, fingerprint};
use crate::api::{Reason, WebhookKeyAlgorithm};
use crate::contract::component::{Component, WEBHOOK_KEYS};
use crate::controllers::shared::material::WebhookFacts;
use crate::controllers::shared::webhook::{EXTERNAL_LABEL, Webhook, key_secret};
use crate::domain::identity::hex;
use crate::domain::key_set::{self, Decision, KeyRecord};
use crate::domain::refusal::Refusal;
use crate::domain::secret::SecretText;
use crate::edge::webhook::route::KeyUse;
use crate::edge::webhook::signing;
use crate::kubernetes::error::Error as KubernetesError;
use crate::kubernetes::owned_metadata;

/// Bytes of a generated key: the longest that Standard Webhooks allows, and as strong as the hash.
const LENGTH: usize = 32;

/// Brings the key Secret to the keys that were decided, with a new one if that was decided too. Returns all keys with their
/// material.
///
/// # Errors
/// What the API server answered.
pub async fn write<W: Webhook>(
    controller: &Controller<W>,
    observed: &Observed<W>,
    decision: &Decision,
) -> Result<Vec<StoredKey>, KubernetesError> {
    let webhook = &*observed.webhook;
    let before = if decision.keys.is_empty() { BTreeMap::new() } else { read_generated(controller, webhook).await? };
    let mut keys: Vec<StoredKey> = Vec::new();
    for record in &decision.keys {
        if let Some(key) = before.get(&record.id) {
            keys.push(StoredKey { record: record.clone(), key: key.clone() });
        }
    }
    if let Some(algorithm) = decision.make {
        let first = !keys.iter().any(|key| key.record.signs_since.is_some());
        keys.push(generate(webhook, algorithm, first, observed.now)?);
    }
    let all: Vec<KeyRecord> = keys.iter().map(|key| key.record.clone()).collect();
    let json =
        |value: Result<String, serde_json::Error>| value.map_err(|error| KubernetesError::Bug(error.to_string()));
    let signs = key_set::signing(&all).map(|record| record.id.as_str()).unwrap_or_default();
    let signing = keys.iter().find(|key| key.record.id == signs);
    let material = signing.map(|key| key.key.expose()).unwrap_or_default();
    let verifies = signing.and_then(|key| key.record.public_key.as_deref()).unwrap_or(material);
    let listed = Zeroizing::new(json(serde_json::to_string(&keys))?);
    let entries = [listed.as_str(), material, signs, verifies, "webhook-keys"];
    let data =
        WEBHOOK_KEYS.iter().zip(entries).map(|(name, text)| ((*name).to_owned(), ByteString(text.into()))).collect();
    let facts = WebhookFacts { keys: all.clone(), ..WebhookFacts::default() };
    let secret = Secret {
        metadata: owned_metadata(
            webhook,
            observed.namespace(),
            &key_secret(webhook),
            Component::WebhookKeys,
            facts.annotations()?,
        ),
        type_: Some("servicebinding.io/webhook".to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    controller.secrets.put(&secret).await?;
    tracing::info!(keys = keys.len(), signing = signs, "keys stored");
    Ok(keys)
}

/// Reads the generated keys, by ID.
async fn read_generated<W: Webhook>(
    controller: &Controller<W>,
    webhook: &W,
) -> Result<BTreeMap<String, SecretText>, KubernetesError> {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let secret = controller.secrets.read(namespace, &key_secret(webhook)).await?;
    let entry = secret.and_then(|secret| secret.data?.remove(WEBHOOK_KEYS[0]));
    let stored: Vec<StoredKey> = entry.and_then(|entry| serde_json::from_slice(&entry.0).ok()).unwrap_or_default();
    Ok(stored.into_iter().map(|key| (key.record.id, key.key)).collect())
}

/// All generated keys with their material.
///
/// # Errors
/// What the API server said.
pub async fn generated<W: Webhook>(
    controller: &Controller<W>,
    webhook: &W,
    records: &[KeyRecord],
) -> Result<Vec<StoredKey>, KubernetesError> {
    let mut stored = read_generated(controller, webhook).await?;
    Ok(records
        .iter()
        .filter_map(|record| Some(StoredKey { record: record.clone(), key: stored.remove(&record.id)? }))
        .collect())
}

/// Generates a key, in the form that the libraries of its scheme take.
fn generate<W: Webhook>(
    webhook: &W,
    algorithm: WebhookKeyAlgorithm,
    signs: bool,
    now: Timestamp,
) -> Result<StoredKey, KubernetesError> {
    let random = |bytes: &mut [u8]| {
        rand::fill(bytes).map_err(|_| KubernetesError::Bug("the system provides no random bytes".into()))
    };
    let mut secret = Zeroizing::new([0; LENGTH]);
    random(&mut *secret)?;
    let mut id = [0; 5];
    random(&mut id)?;
    let (key, public_key) = match algorithm {
        WebhookKeyAlgorithm::Ed25519 => {
            let pair = signing::key_pair(&secret)
                .ok_or_else(|| KubernetesError::Bug("no Ed25519 key can be generated".into()))?;
            (pair.private, Some(pair.public))
        }
        WebhookKeyAlgorithm::HmacSha256 if webhook.has_standard_keys() => {
            (SecretText::new(format!("whsec_{}", STANDARD.encode(*secret))), None)
        }
        WebhookKeyAlgorithm::HmacSha256 => (SecretText::new(hex(&*secret)), None),
    };
    let now = crate::api::whole_seconds(now);
    let record = KeyRecord {
        id: format!("k{}", hex(&id)),
        fingerprint: fingerprint(key.expose().as_bytes()),
        public_key,
        not_before: Some(now),
        not_after: None,
        signs_since: signs.then_some(now),
    };
    Ok(StoredKey { record, key })
}

/// Reads keys that their owner provides for a use; or says why there are none.
///
/// # Errors
/// What the API server answered.
pub async fn external<W: Webhook>(
    controller: &Controller<W>,
    webhook: &W,
    name: &str,
    key_use: KeyUse,
) -> Result<Result<ExternalKeys, Refusal>, KubernetesError> {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let secret = name.to_owned();
    let choosing = move |found: Secret| choose::<W>(found, &secret, &key_use);
    let chosen = controller.secrets.read_as(namespace, name, choosing).await?;
    let missing = || invalid(format!("the Secret {name} does not exist; create it, or name another one"));
    Ok(chosen.unwrap_or_else(|| Err(missing())))
}

fn choose<W: Webhook>(secret: Secret, name: &str, key_use: &KeyUse) -> Result<ExternalKeys, Refusal> {
    let is_labelled =
        secret.metadata.labels.iter().flatten().any(|(label, value)| label == EXTERNAL_LABEL && value == "true");
    if !is_labelled {
        return Err(invalid(format!(
            "the Secret {name} is not meant for webhooks; if it is, label it {EXTERNAL_LABEL}=true"
        )));
    }
    let check = |key: &StoredKey| key_use.check(&document::<W>(key.clone())).map_err(|error| error.to_string());
    let mut keys = ExternalKeys::choose(&secret.data.unwrap_or_default(), key_use.max(), Timestamp::now(), check);
    if let Some(problem) = keys.problem(name).filter(|_| keys.used.is_empty()) {
        return Err(invalid(problem));
    }
    for StoredKey { record, key } in keys.used.iter_mut().filter(|_| W::SIGNS) {
        record.public_key = signing::public_of(key.expose());
    }
    Ok(keys)
}

fn invalid(message: String) -> Refusal {
    Refusal::new(Reason::KeysInvalid, message)
}

//! The material of keys: made, stored and read. Nothing of it is kept in memory.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::context::Context;
use super::super::material::WebhookFacts;
use super::Webhook;
use super::observe::key_secret;
use crate::api::WebhookKeyAlgorithm;
use crate::contract::component::{self, Component};
use crate::contract::route::KeyDocument;
use crate::domain::identity::hex;
use crate::domain::key_set::{self, KeyRecord};
use crate::domain::secret::{SecretText, serialize_exposed};
use crate::edge::webhook::signing;
use crate::kubernetes::error::Error;
use crate::kubernetes::owned_metadata;

/// What a key Secret is for.
pub const KEYS: &str = Component::WebhookKeys.as_str();
/// Entries of a key Secret that the operator makes.
pub const ENTRIES: &[&str] = component::WEBHOOK_KEYS;
/// Label that the owner of an external key Secret puts on it: this Secret may be used to verify webhooks.
pub const EXTERNAL_LABEL: &str = "credence.dev/webhook-keys";
/// Bytes of a key that is made: the longest that Standard Webhooks allows, and as strong as the hash.
const LENGTH: usize = 32;

/// A key with its material, as the entry `keys.json` of a key Secret holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredKey {
    /// What is known of it without its material.
    #[serde(flatten)]
    pub record: KeyRecord,
    /// The key itself.
    #[serde(serialize_with = "serialize_exposed")]
    pub key: SecretText,
}

/// Brings the key Secret to these keys, with one more when `make` says so. Returns all keys with their material.
///
/// # Errors
/// What the API server said.
pub async fn write<W: Webhook>(
    context: &Context,
    webhook: &W,
    records: &[KeyRecord],
    make: Option<WebhookKeyAlgorithm>,
    now: Timestamp,
) -> Result<Vec<StoredKey>, Error> {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let before = if records.is_empty() { BTreeMap::new() } else { read_made(context, webhook).await? };
    let mut keys: Vec<StoredKey> = Vec::new();
    for record in records {
        if let Some(key) = before.get(&record.id) {
            keys.push(StoredKey { record: record.clone(), key: key.clone() });
        }
    }
    if let Some(algorithm) = make {
        let first = !keys.iter().any(|key| key.record.signs_since.is_some());
        keys.push(generate(webhook, algorithm, first, now)?);
    }
    let all: Vec<KeyRecord> = keys.iter().map(|key| key.record.clone()).collect();
    let json = |value: Result<String, serde_json::Error>| value.map_err(|error| Error::Bug(error.to_string()));
    let signs = key_set::signing(&all).map(|record| record.id.as_str()).unwrap_or_default();
    let signing = keys.iter().find(|key| key.record.id == signs);
    let material = signing.map(|key| key.key.expose()).unwrap_or_default();
    let verifies = signing.and_then(|key| key.record.public_key.as_deref()).unwrap_or(material);
    let listed = Zeroizing::new(json(serde_json::to_string(&keys))?);
    let entries = [listed.as_str(), material, signs, verifies, "webhook-keys"];
    let data = ENTRIES.iter().zip(entries).map(|(name, text)| ((*name).to_owned(), ByteString(text.into()))).collect();
    let facts = WebhookFacts { digest: String::new(), keys: all.clone() };
    let secret = Secret {
        metadata: owned_metadata(webhook, namespace, &key_secret(webhook), KEYS, facts.annotations()?),
        type_: Some("servicebinding.io/webhook".to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    context.webhook_secrets.put(&secret).await?;
    tracing::info!(webhook = webhook.full_name(), keys = keys.len(), signing = signs, "keys stored");
    Ok(keys)
}

/// Reads the keys that the operator has made, by ID.
async fn read_made<W: Webhook>(context: &Context, webhook: &W) -> Result<BTreeMap<String, SecretText>, Error> {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let secret = context.webhook_secrets.read(namespace, &key_secret(webhook)).await?;
    let entry = secret.and_then(|secret| secret.data?.remove(ENTRIES[0]));
    let stored: Vec<StoredKey> = entry.and_then(|entry| serde_json::from_slice(&entry.0).ok()).unwrap_or_default();
    Ok(stored.into_iter().map(|key| (key.record.id, key.key)).collect())
}

/// All keys that the operator has made, with their material.
///
/// # Errors
/// What the API server said.
pub async fn made<W: Webhook>(context: &Context, webhook: &W, records: &[KeyRecord]) -> Result<Vec<StoredKey>, Error> {
    let mut stored = read_made(context, webhook).await?;
    Ok(records
        .iter()
        .filter_map(|record| Some(StoredKey { record: record.clone(), key: stored.remove(&record.id)? }))
        .collect())
}

/// A new key, in the form that its scheme's own libraries take.
fn generate<W: Webhook>(
    webhook: &W,
    algorithm: WebhookKeyAlgorithm,
    signs: bool,
    now: Timestamp,
) -> Result<StoredKey, Error> {
    let random = |bytes: &mut [u8]| rand::fill(bytes).map_err(|_| Error::Bug("no random bytes to be had".into()));
    let mut secret = Zeroizing::new([0; LENGTH]);
    random(&mut *secret)?;
    let mut id = [0; 5];
    random(&mut id)?;
    let (key, public_key) = match algorithm {
        WebhookKeyAlgorithm::Ed25519 => {
            let pair = signing::key_pair(&secret).ok_or_else(|| Error::Bug("no Ed25519 key".into()))?;
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

/// Reads keys that somebody else keeps.
///
/// # Errors
/// Why they cannot be used, or what the API server said.
pub async fn external<W: Webhook>(
    context: &Context,
    webhook: &W,
    name: &str,
) -> Result<Result<Vec<StoredKey>, String>, Error> {
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let Some(secret) = context.webhook_secrets.read(namespace, name).await? else {
        return Ok(Err(format!("the Secret {name} does not exist; create it, or name another one")));
    };
    let labelled =
        secret.metadata.labels.iter().flatten().any(|(label, value)| label == EXTERNAL_LABEL && value == "true");
    if !labelled {
        return Ok(Err(format!(
            "the Secret {name} is not meant for webhooks; if it is, label it {EXTERNAL_LABEL}=true"
        )));
    }
    let mut keys = parse_external(name, &secret.data.unwrap_or_default());
    for StoredKey { record, key } in keys.iter_mut().flatten().filter(|_| W::SIGNS) {
        record.public_key = signing::public_of(key.expose());
    }
    Ok(keys)
}

fn parse_external(name: &str, data: &BTreeMap<String, ByteString>) -> Result<Vec<StoredKey>, String> {
    let text = |entry: &str| data.get(entry).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let time = |entry: String| -> Result<Option<Timestamp>, String> {
        if !data.contains_key(&entry) {
            return Ok(None);
        }
        let time = text(&entry).and_then(|text| text.trim().parse().ok());
        time.map(Some).ok_or_else(|| format!("the entry {entry} of the Secret {name} is no time; write RFC 3339"))
    };
    let is_bound = |entry: &&String| entry.ends_with(".notBefore") || entry.ends_with(".notAfter");
    let mut keys = Vec::new();
    for id in data.keys().filter(|entry| !is_bound(entry)) {
        let key = text(id).ok_or_else(|| format!("the entry {id} of the Secret {name} is not text"))?;
        let record = KeyRecord {
            id: id.clone(),
            fingerprint: fingerprint(key.as_bytes()),
            public_key: None,
            not_before: time(format!("{id}.notBefore"))?,
            not_after: time(format!("{id}.notAfter"))?,
            signs_since: None,
        };
        keys.push(StoredKey { record, key: SecretText::new(key.to_owned()) });
    }
    if keys.is_empty() {
        return Err(format!("the Secret {name} holds no key; add one entry for each key"));
    }
    Ok(keys)
}

/// The form of keys that the edge takes. Where it does not sign, the private half of a key is nobody's business there.
pub fn document<W: Webhook>(StoredKey { record, key }: StoredKey) -> KeyDocument {
    let material = record.public_key.filter(|_| !W::SIGNS).map_or(key, SecretText::new);
    KeyDocument { id: record.id, material, not_before: record.not_before, not_after: record.not_after }
}

fn fingerprint(key: &[u8]) -> String {
    hex(&digest(&SHA256, key).as_ref()[..8])
}

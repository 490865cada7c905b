//! The material of keys: generated, stored and read. None of it is kept in memory.

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

use super::controller::Controller;
use super::observe::Observed;
use crate::api::{Reason, WebhookKeyAlgorithm};
use crate::contract::component::{Component, WEBHOOK_KEYS};
use crate::contract::route::KeyDocument;
use crate::controllers::shared::material::WebhookFacts;
use crate::controllers::shared::webhook::{EXTERNAL_LABEL, Webhook, key_secret};
use crate::domain::identity::hex;
use crate::domain::key_set::{self, Decision, KeyRecord};
use crate::domain::refusal::Refusal;
use crate::domain::secret::{SecretText, serialize_exposed};
use crate::edge::webhook::route::KeyUse;
use crate::edge::webhook::signing;
use crate::kubernetes::error::Error as KubernetesError;
use crate::kubernetes::owned_metadata;

/// Bytes of a generated key: the longest that Standard Webhooks allows, and as strong as the hash.
const LENGTH: usize = 32;

/// A key with its material, as the entry `keys.json` of a key Secret holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredKey {
    /// The key without its material.
    #[serde(flatten)]
    pub record: KeyRecord,
    /// The key itself.
    #[serde(serialize_with = "serialize_exposed")]
    pub key: SecretText,
}

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
    let facts = WebhookFacts { digest: String::new(), keys: all.clone() };
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

/// The keys in a Secret of their owner.
pub struct External {
    /// Those that can be used.
    pub keys: Vec<StoredKey>,
    /// The entries that cannot, each with what to write instead.
    pub skipped: Vec<String>,
}

/// How many entries that are skipped a message names.
const MAX_NAMED: usize = 5;

impl External {
    /// Names the entries of this Secret that are skipped, if there are any.
    pub fn describe_skipped(&self, secret: &str) -> Option<String> {
        let named = self.skipped.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more = self.skipped.len().saturating_sub(MAX_NAMED);
        let others = if more > 0 { format!("; and {more} more") } else { String::new() };
        (!named.is_empty()).then(|| format!("entries of the Secret {secret} are skipped: {named}{others}"))
    }
}

/// Reads keys that their owner provides, or says why there are none.
///
/// # Errors
/// What the API server answered.
pub async fn external<W: Webhook>(
    controller: &Controller<W>,
    webhook: &W,
    name: &str,
    key_use: KeyUse<'_>,
) -> Result<Result<External, Refusal>, KubernetesError> {
    let invalid = |message: String| Refusal::new(Reason::KeysInvalid, message);
    let namespace = webhook.meta().namespace.as_deref().unwrap_or_default();
    let Some(secret) = controller.secrets.read(namespace, name).await? else {
        return Ok(Err(invalid(format!("the Secret {name} does not exist; create it, or name another one"))));
    };
    let is_labelled =
        secret.metadata.labels.iter().flatten().any(|(label, value)| label == EXTERNAL_LABEL && value == "true");
    if !is_labelled {
        return Ok(Err(invalid(format!(
            "the Secret {name} is not meant for webhooks; if it is, label it {EXTERNAL_LABEL}=true"
        ))));
    }
    let mut found = parse_external(&secret.data.unwrap_or_default(), |key| {
        key_use.check(&document::<W>(key.clone())).map_err(|error| error.to_string())
    });
    if found.keys.is_empty() {
        return Ok(Err(invalid(
            found
                .describe_skipped(name)
                .unwrap_or_else(|| format!("the Secret {name} holds no key; add one entry for each key")),
        )));
    }
    for StoredKey { record, key } in found.keys.iter_mut().filter(|_| W::SIGNS) {
        record.public_key = signing::public_of(key.expose());
    }
    Ok(Ok(found))
}

/// Reads every entry on its own: one that is no key takes no other down.
fn parse_external(data: &BTreeMap<String, ByteString>, check: impl Fn(&StoredKey) -> Result<(), String>) -> External {
    let text = |entry: &str| data.get(entry).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let time = |entry: String| -> Result<Option<Timestamp>, String> {
        if !data.contains_key(&entry) {
            return Ok(None);
        }
        let time = text(&entry).and_then(|text| text.trim().parse().ok());
        time.map(Some).ok_or_else(|| format!("the entry {entry} is not a time; write RFC 3339"))
    };
    let read = |id: &String| -> Result<StoredKey, String> {
        let key = text(id).ok_or_else(|| format!("the entry {id} is not text"))?;
        let record = KeyRecord {
            id: id.clone(),
            fingerprint: fingerprint(key.as_bytes()),
            public_key: None,
            not_before: time(format!("{id}.notBefore"))?,
            not_after: time(format!("{id}.notAfter"))?,
            signs_since: None,
        };
        let key = StoredKey { record, key: SecretText::new(key.to_owned()) };
        check(&key).map(|()| key)
    };
    let is_bound = |entry: &&String| entry.ends_with(".notBefore") || entry.ends_with(".notAfter");
    let mut found = External { keys: Vec::new(), skipped: Vec::new() };
    for id in data.keys().filter(|entry| !is_bound(entry)) {
        match read(id) {
            Ok(key) => found.keys.push(key),
            Err(why) => found.skipped.push(why),
        }
    }
    found
}

/// A key as the edge gets it. Where the edge only verifies, it does not get the private half.
pub fn document<W: Webhook>(StoredKey { record, key }: StoredKey) -> KeyDocument {
    let material = record.public_key.filter(|_| !W::SIGNS).map_or(key, SecretText::new);
    KeyDocument { id: record.id, material, not_before: record.not_before, not_after: record.not_after }
}

fn fingerprint(key: &[u8]) -> String {
    hex(&digest(&SHA256, key).as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_no_key_takes_no_other_down() {
        let entries: [(&str, &[u8]); 6] = [
            ("good", b"0123456789abcdef"),
            ("README", b"how to rotate: secret words"),
            ("binary", b"\xff\xfe"),
            ("bounded", b"0123456789abcdef"),
            ("bounded.notAfter", b"tomorrow"),
            ("stray.notBefore", b"2026-01-01T00:00:00Z"),
        ];
        let data = entries.map(|(name, text)| (name.to_owned(), ByteString(text.to_vec()))).into();
        let check = |key: &StoredKey| {
            let is_key = !key.key.expose().contains(' ');
            is_key.then_some(()).ok_or_else(|| format!("the key {}: write hexadecimal digits", key.record.id))
        };
        let found = parse_external(&data, check);
        assert_eq!(found.keys.iter().map(|key| key.record.id.as_str()).collect::<Vec<_>>(), ["good"]);
        let message = found.describe_skipped("mine").unwrap();
        for part in ["README: write hexadecimal", "binary is not text", "bounded.notAfter is not a time"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains("secret words") && !message.contains("tomorrow"), "{message}");
    }

    #[test]
    fn a_message_names_a_few_entries_and_counts_the_others() {
        let skipped = (0..500).map(|number| format!("the entry {number} is not text")).collect();
        let message = External { keys: Vec::new(), skipped }.describe_skipped("many").unwrap();
        assert!(message.ends_with("the entry 4 is not text; and 495 more"), "{message}");
    }
}

//! A key of a webhook with its material, and its forms.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::contract::route::KeyDocument;
use crate::controllers::shared::webhook::Webhook;
use crate::domain::identity::hex;
use crate::domain::key_set::KeyRecord;
use crate::domain::secret::{SecretText, serialize_exposed};

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

/// A key as the edge gets it. Where the edge only verifies, it does not get the private half.
pub fn document<W: Webhook>(StoredKey { record, key }: StoredKey) -> KeyDocument {
    let material = record.public_key.filter(|_| !W::SIGNS).map_or(key, SecretText::new);
    KeyDocument { id: record.id, material, not_before: record.not_before, not_after: record.not_after }
}

/// The first 16 hexadecimal digits of the SHA-256 of a key.
pub fn fingerprint(key: &[u8]) -> String {
    hex(&digest(&SHA256, key).as_ref()[..8])
}

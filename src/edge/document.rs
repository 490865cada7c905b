//! What the operator hands to the edge: the content of one route Secret.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::replay::Identity;
use crate::api::{WebhookDestinationSpec, WebhookEndpointSpec};

/// Changes when the form of documents does: routes of before are then written anew.
pub const FORMAT: &str = "2";

/// One key of a webhook. It has no `Debug`, since the key is in it.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyDocument {
    /// ID of the key.
    pub id: String,
    /// The key, as its Secret has it.
    pub material: String,
    /// From when on it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// The spec of a webhook, of either kind.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
pub enum Spec {
    /// What others call.
    #[serde(rename = "endpoint")]
    Endpoint(Box<WebhookEndpointSpec>),
    /// What services send out.
    #[serde(rename = "destination")]
    Destination(Box<WebhookDestinationSpec>),
}

/// One webhook with its keys. It has no `Debug`, since it holds them.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RouteDocument {
    /// Which webhook this is.
    pub endpoint: Endpoint,
    /// Digest of all the rest: two that have the same serve the same.
    pub digest: String,
    /// Its spec.
    pub spec: Spec,
    /// Its keys.
    pub keys: Vec<KeyDocument>,
    /// The account that its target needs at a broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountDocument>,
    /// The keys of `source.jwt`: each a JWKS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_keys: Vec<KeyDocument>,
}

/// What the Secret of a broker account holds. It has no `Debug`, since the key is in it.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AccountDocument {
    /// Servers to start from, each as `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// Whom the broker takes it for.
    pub principal: String,
    /// Its certificate and those above it, in PEM.
    pub chain: String,
    /// Its private key, in PEM.
    pub key: String,
    /// Authorities of the brokers' certificates, in PEM.
    pub ca: String,
}

/// Which webhook, and which generation of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Endpoint {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a namesake that was created later is another one.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
}

impl Endpoint {
    /// What makes a delivery the same when it comes again: what identifies it within its webhook, and the webhook.
    #[must_use]
    pub fn identity(&self, within: &[u8]) -> Identity {
        let text = [self.uid.as_bytes(), b"\0", within].concat();
        let mut identity = [0; 32];
        identity.copy_from_slice(digest(&SHA256, &text).as_ref());
        identity
    }
}

/// Why a document cannot be served, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The spec says something that cannot be.
    Spec(String),
    /// A key cannot be used.
    Keys(String),
}

impl From<String> for Invalid {
    fn from(why: String) -> Self {
        Self::Spec(why)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Spec(why) | Self::Keys(why)) = self;
        formatter.write_str(why)
    }
}

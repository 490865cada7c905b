//! The route document: one webhook with its keys, as the operator hands it to the edge in a Secret of the edge's namespace.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{WebhookDestinationSpec, WebhookEndpointSpec};
use crate::domain::secret::{SecretText, serialize_exposed};

/// Version of the form of route documents. It is part of their digest, so that routes of another version are written again.
pub const FORMAT: &str = "2";
/// The entry of a route Secret that holds the document.
pub const ROUTE_ENTRY: &str = "route.json";

/// One webhook with its keys.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteDocument {
    /// Which webhook this is.
    #[serde(rename = "endpoint")]
    pub webhook: WebhookReference,
    /// Digest of everything else in the document: two documents with the same digest are served in the same way.
    pub digest: String,
    /// The webhook's spec.
    pub spec: Spec,
    /// The webhook's keys.
    pub keys: Vec<KeyDocument>,
    /// The account that the webhook's target needs at a broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountDocument>,
    /// How the Service that the webhook delivers to is reached; by its name if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceAddress>,
    /// The issuer's keys for `source.jwt`: each a JWKS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_keys: Vec<KeyDocument>,
    /// The keys for `service.assertion.hs256` of its target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assertion_keys: Vec<KeyDocument>,
}

/// Which webhook, and which generation of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct WebhookReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: an object of the same name that is created later has another.
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
}

/// The spec of a webhook, of either kind.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
pub enum Spec {
    /// The spec of a `WebhookEndpoint`, which receives deliveries from outside.
    #[serde(rename = "endpoint")]
    Endpoint(Box<WebhookEndpointSpec>),
    /// The spec of a `WebhookDestination`, to which services of the cluster send.
    #[serde(rename = "destination")]
    Destination(Box<WebhookDestinationSpec>),
}

/// One key of a webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyDocument {
    /// ID of the key.
    pub id: String,
    /// The key, as its Secret holds it.
    #[serde(serialize_with = "serialize_exposed")]
    pub material: SecretText,
    /// When the key becomes valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When the key stops being valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum ServiceAddress {
    /// At its cluster IP.
    #[serde(rename = "clusterIP")]
    ClusterIp(IpAddr),
    /// Not at all: it does not exist now.
    #[serde(rename = "missing")]
    Missing,
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIp(address) => write!(formatter, "at {address}"),
            Self::Missing => formatter.write_str("missing"),
        }
    }
}

/// The credential of a broker account.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountDocument {
    /// Servers to start from, each as `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// The principal that the broker maps the certificate to.
    pub principal: String,
    /// Its certificate and the intermediates above it, in PEM.
    pub chain: String,
    /// Its private key, in PEM.
    #[serde(serialize_with = "serialize_exposed")]
    pub key: SecretText,
    /// Authorities of the brokers' certificates, in PEM.
    pub ca: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As v0.2.0 writes it.
    const STORED: &str = concat!(
        r#"{"endpoint":{"namespace":"shop","name":"payments","uid":"u1","generation":3},"digest":"abc","#,
        r#""spec":{"endpoint":{"path":"/shop/payments","verification":{"github":{}},"#,
        r#""target":{"kafka":{"broker":"kafka","serviceIdentity":"hooks","topic":"payments"}}}},"#,
        r#""keys":[{"id":"k1","material":"0123456789abcdef","notBefore":"2026-01-01T00:00:00Z"}],"#,
        r#""account":{"bootstrapServers":["kafka:9092"],"principal":"User:CN=hooks","chain":"c","key":"k","ca":"a"},"#,
        r#""sourceKeys":[{"id":"issuer","material":"{}"}]}"#
    );

    #[test]
    fn a_document_keeps_its_stored_form() {
        let document: RouteDocument = serde_json::from_str(STORED).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), STORED);
    }
}

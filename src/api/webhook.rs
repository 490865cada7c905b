//! What `WebhookEndpoint` and `WebhookDestination` share: where keys come from, who may call and how much, and how an object
//! and its keys stand.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where keys come from.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.generated) != has(self.external)").message("keys: set exactly one of generated and external"))]
pub struct WebhookKeys {
    /// The operator makes them and a `RotationPolicy` turns them; they are in the Secret that `status.keySecret` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedKeys>,
    /// Somebody else fills a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalKeys>,
}

/// Keys that the operator makes.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct GeneratedKeys {
    /// What kind of keys. Another one takes effect as a new key does: beside the former key, until that has ended.
    /// Default: `HmacSha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<WebhookKeyAlgorithm>,
}

/// Kinds of keys that the operator makes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum WebhookKeyAlgorithm {
    /// One secret that both sides have (`v1` of Standard Webhooks).
    #[default]
    HmacSha256,
    /// A private key for the sender, and a public one for the receiver (`v1a` of Standard Webhooks).
    Ed25519,
}

/// A Secret that somebody else fills.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalKeys {
    /// The Secret, in the namespace of this object. Every entry is a key by its ID; `<id>.notBefore` and
    /// `<id>.notAfter` (RFC 3339) bound it.
    pub secret_ref: LocalSecretReference,
}

/// A Secret in the namespace of the object that names it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct LocalSecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Who may call, beside holding a key.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.clientCertificate) || has(self.jwt) || has(self.cidrs)").message("source: set clientCertificate, jwt or cidrs, or leave source out"))]
#[x_kube(validation = Rule::new("!has(self.trustedProxies) || has(self.cidrs)").message("trustedProxies: they only tell the address for cidrs"))]
pub struct WebhookSource {
    /// The certificate that the caller must show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificatePin>,
    /// The token that the caller must send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtPin>,
    /// Networks that the caller must be in. They never stand alone: a signature is always required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 43)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("cidrs: write networks such as 192.0.2.0/24"))]
    pub cidrs: Vec<String>,
    /// Proxies before the edge whose `X-Forwarded-For` is believed: the last address in it that is not such a proxy is the
    /// caller's. Without any, the address of the connection is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 43)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("trustedProxies: write networks such as 192.0.2.0/24"))]
    pub trusted_proxies: Vec<String>,
}

/// The certificate that a caller must show; one of the names is enough.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.spiffeIDs) || has(self.dnsNames)").message("clientCertificate: set spiffeIDs or dnsNames"))]
pub struct ClientCertificatePin {
    /// SPIFFE IDs (URI SANs).
    #[serde(default, rename = "spiffeIDs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 10, max = 2048), regex(pattern = r"^spiffe://[a-z0-9._-]+/.+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub spiffe_ids: Vec<String>,
    /// DNS names (DNS SANs), exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub dns_names: Vec<String>,
}

/// A JWT in `Authorization: Bearer` that says who calls. It lives at most 1 hour, and is no part of what is signed of a
/// delivery.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtPin {
    /// What the claim `iss` must be.
    #[schemars(length(min = 1, max = 253), regex(pattern = r#"^[!"$-~]+$"#))]
    pub issuer: String,
    /// What the claim `aud` must be or contain.
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
    /// What the claim `sub` must be one of.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253), regex(pattern = r"^[ -~]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub subjects: Vec<String>,
    /// The Secret with the keys of the issuer, in the namespace of this object. Every entry is a JWKS by its ID;
    /// `<id>.notBefore` and `<id>.notAfter` (RFC 3339) bound it.
    pub secret_ref: LocalSecretReference,
}

/// Bounds of one webhook.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookLimits {
    /// Largest body, in bytes or with `Ki` or `Mi`: at most 10Mi. Default: `256Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,7}(Ki|Mi)?$"))]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('10Mi')) <= 0").message("body: at most 10Mi"))]
    pub body: Option<String>,
    /// Deliveries per second, to the webhook as a whole. Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_second: Option<u32>,
    /// Deliveries per second from one address. Default: as for the webhook as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_source_per_second: Option<u32>,
}

/// How a webhook stands.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions in the order of the work: `Accepted`, `KeysReady`, `Programmed`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What the object gives, in words: what is signed, what freshness and newness rest on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
    /// Secret that holds the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<String>,
    /// How many keys are in use now: any of them verifies, or all of them sign.
    #[serde(default)]
    pub live_keys: u32,
    /// Every key, never its material.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<WebhookKeyStatus>,
    /// Which generation each replica of the edge serves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<String, i64>,
}

/// How one key stands.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookKeyStatus {
    /// Its ID.
    pub id: String,
    /// First 16 hexadecimal digits of the SHA-256 of the key.
    pub fingerprint: String,
    /// The public key, where it is one, in the form of Standard Webhooks (`whpk_`): nothing else is needed to verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// How it stands.
    pub state: WebhookKeyState,
    /// Until when it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Time>,
    /// When a delivery was last verified with it, to ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified: Option<Time>,
}

/// How a key stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum WebhookKeyState {
    /// It is not accepted yet.
    Pending,
    /// It is accepted, and the newest.
    Active,
    /// It is accepted until it ends; another one is newer.
    Retiring,
    /// It is not accepted any more.
    Expired,
}

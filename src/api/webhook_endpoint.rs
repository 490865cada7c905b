//! `WebhookEndpoint`: a webhook that others call, how its deliveries are verified, and where they go.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Verification, WebhookKeys, WebhookLimits, WebhookSource, WebhookStatus, WebhookTarget};

/// A webhook that others call: a delivery reaches the target only if its signature, age and source are right and it is not a
/// replay, and every attempt has an audit line.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "credence.dev",
    version = "v1alpha1",
    kind = "WebhookEndpoint",
    plural = "webhookendpoints",
    shortname = "whe",
    category = "credence",
    namespaced,
    status = "WebhookStatus",
    doc = "A webhook that others call. The edge verifies each delivery, checks its source, rejects replays and writes an audit log; then the delivery goes to the target. Rotating keys changes neither this object nor its URL.",
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Keys", type_ = "integer", json_path = ".status.liveKeys"),
    printcolumn(name = "Protection", type_ = "string", json_path = ".status.protection", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.verification.gitlab) || has(self.source)").message("source: GitLab signs nothing, its token is a password; restrict the source as well, with clientCertificate, jwt or cidrs"))]
#[x_kube(validation = Rule::new("!has(self.source) || !has(self.source.jwt) || !has(self.verification.jwt)").message("source.jwt: the token of verification.jwt says who calls already; set issuer, audience and subject there"))]
#[x_kube(validation = Rule::new("!has(self.source) || !has(self.source.jwt) || !has(self.verification.hmac) || self.verification.hmac.header != 'authorization' && self.verification.hmac.parts.all(p, !(has(p.id) && p.id.header == 'authorization') && !(has(p.timestamp) && p.timestamp.header == 'authorization'))").message("source.jwt: the token is in the header authorization, which verification.hmac reads otherwise; let the sender use another header"))]
#[x_kube(validation = Rule::new("!has(self.verification.twilio) || has(self.externalURL)").message("externalURL: Twilio signs the URL that it calls; set it as it is configured at Twilio"))]
#[x_kube(validation = Rule::new("!has(self.verification.httpMessageSignatures) || has(self.externalURL) || oldSelf.hasValue() && has(oldSelf.value().verification.httpMessageSignatures) && !has(oldSelf.value().externalURL)").message("externalURL: signatures cover the URL, whose host the caller would choose; set it as the caller knows it").optional_old_self(true))]
#[x_kube(validation = Rule::new("!has(self.verification.jwt) || has(self.keys) && has(self.keys.external)").message("keys: JWTs are verified with the issuer's JWKS; name the Secret that contains it in keys.external"))]
#[x_kube(validation = Rule::new("!has(self.verification.httpMessageSignatures) || self.verification.httpMessageSignatures.algorithm == 'HmacSha256' || has(self.keys) && has(self.keys.external)").message("keys: the caller holds the private key; name the Secret with its public keys in keys.external"))]
#[x_kube(validation = Rule::new("!has(self.keys) || !has(self.keys.generated) || !has(self.keys.generated.algorithm) || self.keys.generated.algorithm == 'HmacSha256' || has(self.verification.standardWebhooks)").message("keys.generated.algorithm: only Standard Webhooks supports generated key pairs; use HmacSha256, or verification.standardWebhooks"))]
pub struct WebhookEndpointSpec {
    /// Path at the edge, compared exactly. It begins with `/` and the namespace, and must not contain a secret. Immutable.
    #[schemars(length(min = 2, max = 253), regex(pattern = r"^(/[A-Za-z0-9][A-Za-z0-9._~-]*)+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("path is immutable, because callers use it; create another WebhookEndpoint for the other path"))]
    pub path: String,

    /// The complete URL that callers use, for schemes that sign the URL: the edge cannot know it behind a proxy, and does not believe
    /// the host that a caller names.
    #[serde(default, rename = "externalURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 2048), regex(pattern = r"^https?://[^\s#]+$"))]
    pub external_url: Option<String>,

    /// How deliveries are verified.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub verification: Verification,

    /// How far a signed timestamp may be from the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub tolerance: Option<Tolerance>,

    /// Where keys come from. Default: `generated: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub keys: Option<WebhookKeys>,

    /// Who may call, in addition to holding a key. Every part that is set must match. Default: anybody with a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub source: Option<WebhookSource>,

    /// How repeated deliveries are recognized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub replay: Option<Replay>,

    /// Where verified deliveries go.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub target: WebhookTarget,

    /// Names of the caller's headers that are forwarded, in lower case; all others are dropped. Headers for credentials,
    /// cookies, the connection or the context of a caller (`txn-token`, `baggage`) are never forwarded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(h, !(h in ['authorization', 'cookie', 'host', 'connection', 'content-length', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'keep-alive', 'expect', 'forwarded', 'idempotency-key', 'txn-token', 'baggage']) && !h.startsWith('proxy-') && !h.startsWith('x-forwarded-') && !h.startsWith('credence-'))").message("forwardHeaders: headers for credentials, cookies, the connection and the context of a caller (txn-token, baggage) are never forwarded; remove them"))]
    pub forward_headers: Vec<String>,

    /// Limits on size and rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub limits: Option<WebhookLimits>,
}

/// How far a signed timestamp may be from the clock.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct Tolerance {
    /// How old a signed timestamp may be, from `1s` to `24h`. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("past: use a duration such as 5m, at least 1s and at most 24h"))]
    pub past: Option<String>,
    /// How far a signed timestamp may be in the future, at most `10m`. Default: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('0s') && duration(self) <= duration('10m')").message("future: use a duration such as 1m, at most 10m"))]
    pub future: Option<String>,
}

/// How repeated deliveries are recognized.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct Replay {
    /// How long a delivery is remembered: from `1m` to `168h` (7 days), and never less than the tolerance. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1m') && duration(self) <= duration('168h')").message("window: use a duration such as 24h, at least 1m and at most 168h"))]
    pub window: Option<String>,
    /// Where deliveries are remembered. Default: `Memory`, which protects with a single replica of the edge only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<ReplayStore>,
    /// Where the idempotency key is in the signed JSON body, as a JSON Pointer (RFC 6901) such as `/data/id`. Two deliveries
    /// with the same idempotency key count as one, however they are signed. A number counts as it is written, like a string of
    /// the same characters: `1` and `1.0` differ, `1` and `"1"` do not. A delivery without the key, or with a repeated member on
    /// the way to it, is refused. Default: the signed delivery ID, or the digest of everything that is signed, for schemes
    /// without a signed ID.
    #[serde(default, rename = "idempotencyKey", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^(/([^~/]|~[01])*)+$"))]
    pub idempotency_key: Option<String>,
}

/// Where deliveries are remembered.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ReplayStore {
    /// In the memory of each replica of the edge; lost when it restarts.
    #[default]
    Memory,
    /// In the Redis or Valkey of the installation, for all replicas. While it is unavailable, deliveries are refused.
    Redis,
}

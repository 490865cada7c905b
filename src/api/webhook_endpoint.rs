//! `WebhookEndpoint`: what may come in at the edge, how it is verified, and where it goes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Verification, WebhookKeys, WebhookLimits, WebhookSource, WebhookStatus, WebhookTarget};

/// A webhook: nothing reaches its target unless it is signed, fresh, pinned, new and on record.
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
    doc = "A webhook that others call. The edge verifies every delivery against the live keys, the tolerance, the source pin and the replay memory before it goes to the target; each attempt is one audit line. Keys turn without a change of this object or its URL.",
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Keys", type_ = "integer", json_path = ".status.liveKeys"),
    printcolumn(name = "Protection", type_ = "string", json_path = ".status.protection", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.verification.gitlab) || has(self.source)").message("source: GitLab signs nothing, its token is a password; pin the source as well, by clientCertificate, jwt or cidrs"))]
#[x_kube(validation = Rule::new("!has(self.source) || !has(self.source.jwt) || !has(self.verification.jwt)").message("source.jwt: the token of verification.jwt says who calls already; set issuer, audience and subject there"))]
#[x_kube(validation = Rule::new("!has(self.source) || !has(self.source.jwt) || !has(self.verification.hmac) || self.verification.hmac.header != 'authorization' && self.verification.hmac.parts.all(p, !(has(p.id) && p.id.header == 'authorization') && !(has(p.timestamp) && p.timestamp.header == 'authorization'))").message("source.jwt: the token stands in the header authorization, which verification.hmac reads otherwise; let the sender use another header"))]
#[x_kube(validation = Rule::new("!has(self.verification.twilio) || has(self.externalURL)").message("externalURL: Twilio signs the URL that it calls; write it here as Twilio has it"))]
#[x_kube(validation = Rule::new("!has(self.verification.jwt) || has(self.keys) && has(self.keys.external)").message("keys: JWTs are verified with the issuer's JWKS; name the Secret that holds it in keys.external"))]
#[x_kube(validation = Rule::new("!has(self.verification.httpMessageSignatures) || self.verification.httpMessageSignatures.algorithm == 'HmacSha256' || has(self.keys) && has(self.keys.external)").message("keys: the caller holds the private key; name the Secret with its public keys in keys.external"))]
#[x_kube(validation = Rule::new("!has(self.keys) || !has(self.keys.generated) || !has(self.keys.generated.algorithm) || self.keys.generated.algorithm == 'HmacSha256' || has(self.verification.standardWebhooks)").message("keys.generated.algorithm: only Standard Webhooks has public keys that the operator makes"))]
pub struct WebhookEndpointSpec {
    /// Path at the edge, exactly as callers write it. It begins with `/` and the namespace, and never holds a secret.
    /// Cannot be changed.
    #[schemars(length(min = 2, max = 253), regex(pattern = r"^(/[A-Za-z0-9][A-Za-z0-9._~-]*)+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("path is immutable: callers know it; create another WebhookEndpoint for the other path"))]
    pub path: String,

    /// The whole URL as callers know it, where a scheme signs the URL: behind a proxy the edge cannot see it.
    #[serde(default, rename = "externalURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 2048), regex(pattern = r"^https?://[^\s#]+$"))]
    pub external_url: Option<String>,

    /// How a delivery is verified.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub verification: Verification,

    /// How old and how far ahead of the clock a signed timestamp may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub tolerance: Option<Tolerance>,

    /// Where keys come from. Default: `generated: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub keys: Option<WebhookKeys>,

    /// Who may call, beside holding a key: every part that is given must hold as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub source: Option<WebhookSource>,

    /// How a delivery that comes twice is recognized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub replay: Option<Replay>,

    /// Where a verified delivery goes.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub target: WebhookTarget,

    /// Headers of the caller that travel on, in lower case; all others end here. Those that carry signatures, cookies,
    /// credentials or the connection never travel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(h, !(h in ['authorization', 'cookie', 'host', 'connection', 'content-length', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'keep-alive', 'expect', 'forwarded', 'idempotency-key']) && !h.startsWith('proxy-') && !h.startsWith('x-forwarded-') && !h.startsWith('credence-'))").message("forwardHeaders: lower-case names; credentials, cookies, and headers of the connection never travel on"))]
    pub forward_headers: Vec<String>,

    /// Bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub limits: Option<WebhookLimits>,
}

/// How far a signed timestamp may be from the clock.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct Tolerance {
    /// How old it may be: at most 24 hours. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("past: write a duration such as 5m, at least 1s and at most 24h"))]
    pub past: Option<String>,
    /// How far ahead it may be: at most 10 minutes. Default: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('0s') && duration(self) <= duration('10m')").message("future: write a duration such as 1m, at most 10m"))]
    pub future: Option<String>,
}

/// How a delivery that comes twice is recognized.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct Replay {
    /// How long a delivery is remembered: never less than the tolerance, at most 7 days. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1m') && duration(self) <= duration('168h')").message("window: write a duration such as 24h, at least 1m and at most 168h"))]
    pub window: Option<String>,
    /// Where it is remembered. Default: `Memory`, which is right for one replica of the edge only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<ReplayStore>,
    /// Where in the signed JSON body the idempotency key stands, as a JSON Pointer (RFC 6901) such as `/data/id`. Two
    /// deliveries with one idempotency key are one, however they are signed. Default: the signed delivery ID, or the
    /// digest of all that is signed where a scheme has no ID.
    #[serde(default, rename = "idempotencyKey", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^(/([^~/]|~[01])*)+$"))]
    pub idempotency_key: Option<String>,
}

/// Where deliveries are remembered.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ReplayStore {
    /// In the edge itself; forgotten when it restarts.
    #[default]
    Memory,
    /// In the Redis or Valkey that the edge was given. While it is down, deliveries are refused.
    Redis,
}

//! `WebhookEndpoint`: what may come in at the edge, how it is verified, and where it goes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{LocalSecretReference, Verification, WebhookKeys, WebhookStatus};

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

/// Where a verified delivery goes: exactly one.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.service), has(self.object), has(self.kafka)].filter(x, x).size() == 1").message("target: set exactly one of service, object and kafka"))]
pub struct WebhookTarget {
    /// A Service, by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTarget>,
    /// A Kubernetes object, created once for each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectTarget>,
    /// A Kafka topic, one record for each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaTarget>,
}

/// A Service in the namespace of the endpoint.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct ServiceTarget {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path there. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[!$-;=@-Z_a-z~]*$"))]
    pub path: Option<String>,
    /// How long one attempt may take, 1 s to 60 s. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("timeout: write a duration such as 10s, at least 1s and at most 60s"))]
    pub timeout: Option<String>,
    /// How often a delivery is tried while the Service cannot be reached or answers 502, 503 or 504. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
}

/// An object in the namespace of the endpoint, made from a template: a Job, an Argo Workflow, or of any other namespaced
/// kind. Its name is made from the endpoint and the delivery, so that a delivery makes one object however often it comes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTarget {
    /// `ServiceAccount` in the namespace of the endpoint that creates the object: the edge has no right to create
    /// anything. It asks for a token of this `ServiceAccount`, which a Role of the namespace has to allow.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// The object, at most 64 KiB of it. A string that is `$(delivery.id)`, `$(delivery.body)`,
    /// `$(delivery.bodyBase64)`, `$(delivery.endpoint)` or `$(delivery.assertion)` as a whole becomes what it names.
    pub template: ObjectTemplate,
    /// How long one attempt may take, 1 s to 60 s. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("timeout: write a duration such as 10s, at least 1s and at most 60s"))]
    pub timeout: Option<String>,
    /// How often creating it is tried while the API server cannot be reached or cannot do it now. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
}

/// An object without its name and its namespace. Of `metadata` it may have labels and annotations only.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectTemplate {
    /// Group and version, such as `batch/v1`.
    #[schemars(
        length(max = 317),
        regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub api_version: String,
    /// Kind, such as `Job`.
    #[schemars(length(max = 63), regex(pattern = r"^[A-Za-z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// Everything else that the kind has.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A topic of a broker, produced to with the account that a `ServiceIdentity` has there.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTarget {
    /// The `BrokerConnection`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub broker: String,
    /// `ServiceIdentity` in the namespace of the endpoint, with an account on the broker. A `TopicPolicy` has to let it
    /// publish to the topic.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_identity: String,
    /// The topic. It is never created.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..'])").message("topic: neither . nor .. can be the name of a topic"))]
    pub topic: String,
    /// How long one attempt may take, 1 s to 60 s. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("timeout: write a duration such as 10s, at least 1s and at most 60s"))]
    pub timeout: Option<String>,
    /// How often a delivery is tried while the broker cannot be reached or cannot take it now. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
}

/// Bounds of one endpoint.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookLimits {
    /// Largest body, in bytes or with `Ki` or `Mi`: at most 10Mi. Default: `256Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,7}(Ki|Mi)?$"))]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('10Mi')) <= 0").message("body: at most 10Mi"))]
    pub body: Option<String>,
    /// Deliveries per second, to the endpoint as a whole. Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_second: Option<u32>,
    /// Deliveries per second from one address. Default: as for the endpoint as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_source_per_second: Option<u32>,
}

//! `WebhookDestination`: what services send out through the edge, how it is signed, and where it may go.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{NoSettings, WebhookKeys, WebhookLimits, WebhookSource, WebhookStatus, WebhookTarget};

/// A webhook that services of the cluster send to others: senders are authenticated, deliveries are signed, and every attempt
/// has an audit line.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "credence.dev",
    version = "v1alpha1",
    kind = "WebhookDestination",
    plural = "webhookdestinations",
    shortname = "whd",
    category = "credence",
    namespaced,
    status = "WebhookStatus",
    doc = "A webhook that services of the cluster send to others. A service posts to the edge with its own certificate; the edge signs with every live key, delivers to one destination with a limited number of attempts, and sends what the destination does not accept to the dead letter. Rotating keys does not change this object.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.target.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Keys", type_ = "integer", json_path = ".status.liveKeys"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDestinationSpec {
    /// Path at the edge that services post to, compared exactly. It begins with `/` and the namespace. Immutable.
    #[schemars(length(min = 2, max = 253), regex(pattern = r"^(/[A-Za-z0-9][A-Za-z0-9._~-]*)+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("path is immutable, because services use it; create another WebhookDestination for the other path"))]
    pub path: String,

    /// Who may send. Every part that is set must match, and a client certificate is always required.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[x_kube(validation = Rule::new("has(self.clientCertificate)").message("source: without clientCertificate the edge would sign for everybody who can reach it; name the identities that may send in clientCertificate"))]
    pub source: WebhookSource,

    /// How deliveries are signed.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub signing: Signing,

    /// Where keys come from. Default: `generated: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub keys: Option<WebhookKeys>,

    /// Where deliveries go.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub target: DestinationTarget,

    /// Where deliveries go that the destination does not accept. Default: nowhere, the sender gets an error and must retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub dead_letter: Option<WebhookTarget>,

    /// Names of the sender's headers that are forwarded, in lower case; all others are dropped. Headers for credentials,
    /// cookies, the signature, the connection or the context of a caller (`txn-token`, `baggage`) are never forwarded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(h, !(h in ['authorization', 'cookie', 'host', 'connection', 'content-length', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'keep-alive', 'expect', 'forwarded', 'idempotency-key', 'txn-token', 'baggage', 'user-agent']) && !h.startsWith('proxy-') && !h.startsWith('x-forwarded-') && !h.startsWith('credence-') && !h.startsWith('webhook-'))").message("forwardHeaders: headers for credentials, cookies, the signature, the connection and the context of a caller (txn-token, baggage) are never forwarded; remove them"))]
    pub forward_headers: Vec<String>,

    /// Limits on size and rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub limits: Option<WebhookLimits>,
}

/// How deliveries are signed: exactly one of the fields below.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.standardWebhooks)").message("signing: set standardWebhooks"))]
pub struct Signing {
    /// Standard Webhooks: `v1` with an HMAC-SHA256 key, `v1a` with an Ed25519 key. Every live key adds a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_webhooks: Option<NoSettings>,
}

/// The destination. Its certificate must be valid for the host of the URL. Redirects are not followed, and private,
/// link-local and local addresses are refused when connecting, unless the installation allows them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationTarget {
    /// URL that deliveries are posted to, with the scheme `https`.
    #[schemars(
        length(min = 9, max = 2048),
        regex(pattern = r"^https://[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*(/[!$-;=@-Z_a-z~]*)?(\?[!$-;=?-Z_a-z~]*)?$")
    )]
    #[x_kube(validation = Rule::new("isURL(self)").message("url: use an absolute URL such as https://hooks.example.com/in"))]
    pub url: String,
    /// Public keys that the destination's certificate may have, each as the base64 of the SHA-256 of its
    /// `SubjectPublicKeyInfo` (RFC 7469, section 2.4). List the next key next to the one in use. Default: any key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(equal = 44), regex(pattern = r"^[A-Za-z0-9+/]{43}=$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub public_keys: Vec<String>,
    /// Authorities that the destination's certificate may chain to, in PEM. Default: those of the public web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// Timeout of one attempt, from `1s` to `60s`. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("timeout: use a duration such as 10s, at least 1s and at most 60s"))]
    pub timeout: Option<String>,
    /// Maximum number of attempts while the destination cannot be reached, or answers 408, 425, 429 or 5xx. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
    /// Pause after the first attempt, from `1s` to `60s`. It doubles with each attempt, up to one minute. Default: `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("backoff: use a duration such as 1s, at least 1s and at most 60s"))]
    pub backoff: Option<String>,
}

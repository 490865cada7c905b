//! `WebhookDestination`: what services send out through the edge, how it is signed, and where it may go.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{NoSettings, WebhookKeys, WebhookLimits, WebhookSource, WebhookStatus, WebhookTarget};

/// The mirror of a `WebhookEndpoint`: nothing goes out unless its sender is known, and everything is signed and on record.
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
    doc = "A webhook that services of the cluster send to others. A service posts to the edge with its own certificate; the edge signs with every live key, delivers to the one destination with bounded attempts, and hands what cannot be delivered to the dead letter. Keys turn without a change of this object.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.target.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Keys", type_ = "integer", json_path = ".status.liveKeys"),
    printcolumn(name = "Path", type_ = "string", json_path = ".spec.path", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDestinationSpec {
    /// Path at the edge that services post to, exactly as they write it. It begins with `/` and the namespace. Cannot be
    /// changed.
    #[schemars(length(min = 2, max = 253), regex(pattern = r"^(/[A-Za-z0-9][A-Za-z0-9._~-]*)+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("path is immutable: services know it; create another WebhookDestination for the other path"))]
    pub path: String,

    /// Who may send: every part that is given must hold, and a client certificate is always required.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    #[x_kube(validation = Rule::new("has(self.clientCertificate)").message("source: name the identities that may send in clientCertificate; whoever can reach the edge would otherwise be signed for"))]
    pub source: WebhookSource,

    /// How a delivery is signed.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub signing: Signing,

    /// Where keys come from. Default: `generated: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub keys: Option<WebhookKeys>,

    /// Where deliveries go.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub target: DestinationTarget,

    /// Where a delivery goes that the destination did not take. Without it, the sender is told and keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub dead_letter: Option<WebhookTarget>,

    /// Headers of the sender that travel on, in lower case; all others end here. Those that carry credentials, cookies,
    /// the signature or the connection never travel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("self.all(h, !(h in ['authorization', 'cookie', 'host', 'connection', 'content-length', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'keep-alive', 'expect', 'forwarded', 'idempotency-key', 'user-agent']) && !h.startsWith('proxy-') && !h.startsWith('x-forwarded-') && !h.startsWith('credence-') && !h.startsWith('webhook-'))").message("forwardHeaders: lower-case names; credentials, cookies, the signature, and headers of the connection never travel on"))]
    pub forward_headers: Vec<String>,

    /// Bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub limits: Option<WebhookLimits>,
}

/// How a delivery is signed: exactly one.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.standardWebhooks)").message("signing: set standardWebhooks"))]
pub struct Signing {
    /// Standard Webhooks: `v1` for a key of HMAC-SHA256, `v1a` for one of Ed25519; every live key makes a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_webhooks: Option<NoSettings>,
}

/// The destination. Its host is pinned by its certificate; redirects are not followed, and an address that is private,
/// link-local or of this machine is refused when it is connected to.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationTarget {
    /// The URL that deliveries are posted to.
    #[schemars(
        length(min = 9, max = 2048),
        regex(pattern = r"^https://[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*(/[!$-;=@-Z_a-z~]*)?(\?[!$-;=?-Z_a-z~]*)?$")
    )]
    #[x_kube(validation = Rule::new("isURL(self)").message("url: write an absolute URL such as https://hooks.example.com/in"))]
    pub url: String,
    /// Public keys that the certificate of the destination may have, each as the base64 of the SHA-256 of its
    /// `SubjectPublicKeyInfo` (RFC 7469 section 2.4). Beside the key in use, name the one that comes next. Default: any key
    /// that the certificate's authority vouches for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(equal = 44), regex(pattern = r"^[A-Za-z0-9+/]{43}=$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub public_keys: Vec<String>,
    /// Authorities that the certificate of the destination may chain to, in PEM. Default: those of the public web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// How long one attempt may take, 1 s to 60 s. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("timeout: write a duration such as 10s, at least 1s and at most 60s"))]
    pub timeout: Option<String>,
    /// How often a delivery is tried while the destination cannot be reached, or answers 408, 425, 429 or 5xx. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
    /// The pause after the first attempt, 1 s to 60 s; it doubles each time, up to one minute. Default: `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("backoff: write a duration such as 1s, at least 1s and at most 60s"))]
    pub backoff: Option<String>,
}

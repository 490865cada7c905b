//! `RotationPolicy`: when and how fast certificates and keys are renewed, decided apart from what they are for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When and how fast the certificates and keys of the matching objects are renewed.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "credence.dev",
    version = "v1alpha1",
    kind = "RotationPolicy",
    plural = "rotationpolicies",
    shortname = "rp",
    category = "credence",
    namespaced,
    status = "RotationPolicyStatus",
    doc = "When and how fast the certificates and keys of the matching objects are renewed. Rotation is configured separately from the workload. The most specific policy wins: one that names the identity, then one that selects it by labels, then one for the whole namespace, then those in the operator's namespace, then the built-in values (24h, renewed after 66 percent).",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Targets", type_ = "integer", json_path = ".status.targets"),
    printcolumn(name = "Outstanding", type_ = "integer", json_path = ".status.outstanding"),
    printcolumn(name = "Issued-Before", type_ = "string", json_path = ".spec.issuedBefore", priority = 1),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct RotationPolicySpec {
    /// Objects that the policy applies to. A policy in the operator's namespace applies to objects of all namespaces that no
    /// policy of their own namespace matches.
    #[schemars(length(min = 1, max = 64))]
    pub targets: Vec<RotationTarget>,

    /// Lifetime and renewal point of certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub certificates: Option<CertificateRotation>,

    /// When generated keys of webhooks are rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub credentials: Option<CredentialRotation>,

    /// Times at which certificates may be renewed. Default: at all times. A window never delays a renewal past the safety
    /// margin, which is half of the time between the renewal point and the expiry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub windows: Vec<RotationWindow>,

    /// How many identities may be renewed at once. An identity that does not become Ready again keeps its place, so a failing
    /// rotation stops by itself. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_concurrent: Option<u32>,

    /// Renew every certificate and key that was issued before this time (RFC 3339), now and regardless of windows. A time in
    /// the future takes effect when it is reached. For emergencies; it can stay in Git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<Time>,

    /// Stop all renewals except those that prevent a certificate from expiring. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// What a policy applies to.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.name) && has(self.selector))").message("targets: set name or selector, not both"))]
pub struct RotationTarget {
    /// Kind of the objects.
    pub kind: RotationTargetKind,

    /// Name of one object. In the operator's namespace it matches that name in every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,

    /// Labels of the objects. Without name and selector, the policy applies to all objects of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Kinds with certificates or keys that are rotated.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum RotationTargetKind {
    /// Certificates and broker credentials of a `ServiceIdentity`.
    ServiceIdentity,
    /// Generated keys of a `WebhookEndpoint`.
    WebhookEndpoint,
    /// Generated keys of a `WebhookDestination`.
    WebhookDestination,
    /// Keys of the issuer of tokens of a `TrustDomain`. Only policies in the operator's namespace apply.
    TrustDomain,
}

/// Lifetime and renewal point of certificates.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRotation {
    /// How long a certificate is valid, such as `24h` or `90m`: between 5 minutes and 397 days. Default: `24h`. A certificate
    /// is never valid for longer than its authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('5m') && duration(self) <= duration('9528h')").message("lifetime: use a duration such as 24h or 90m, at least 5m and at most 9528h (397 days)"))]
    pub lifetime: Option<String>,

    /// Share of the lifetime after which a certificate is renewed, in percent. Default: 66. Each identity is renewed up to a
    /// tenth of the lifetime earlier, always by the same amount, so that renewals are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 90))]
    pub renew_after_percent: Option<u32>,
}

/// When keys are rotated.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
pub struct CredentialRotation {
    /// How long senders sign with one key, such as `720h`: between 1 minute and 5 years. Default: `720h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1m') && duration(self) <= duration('43800h')").message("every: use a duration such as 720h, at least 1m and at most 43800h"))]
    pub every: Option<String>,

    /// How long the former key is accepted after that, such as `24h`: at most 30 days. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s') && duration(self) <= duration('720h')").message("overlap: use a duration such as 24h, at least 1s and at most 720h"))]
    pub overlap: Option<String>,
}

/// A time of the week at which certificates may be renewed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationWindow {
    /// Days on which the window opens. Default: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,

    /// When the window opens, as `HH:MM` in its time zone.
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,

    /// How long the window stays open, such as `3h`: between 1 minute and 24 hours.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1m') && duration(self) <= duration('24h')").message("duration: use a duration such as 3h or 90m, at least 1m and at most 24h"))]
    pub duration: String,

    /// Name of the time zone in the IANA database, such as `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// A day of the week.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// The state of a `RotationPolicy`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationPolicyStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions: `Accepted`, `Rotated`, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// How many objects this policy applies to.
    #[serde(default)]
    pub targets: u32,

    /// How many of them still use a certificate or a key that was issued before `spec.issuedBefore`.
    #[serde(default)]
    pub outstanding: u32,

    /// Identities that are being renewed, as `namespace/name`; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_progress: Vec<String>,
}

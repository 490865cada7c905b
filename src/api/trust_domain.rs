//! `TrustDomain`: the authority that issues certificates, and the bundle that verifies them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Environment, NamespaceSelector, SecretReference, SubjectIssuer, SubjectIssuerStatus, TokenKeyStatus, Tokens,
};

/// A SPIFFE trust domain: one issuing authority, one trust bundle, one environment.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "credence.dev",
    version = "v1alpha1",
    kind = "TrustDomain",
    plural = "trustdomains",
    shortname = "td",
    category = "credence",
    status = "TrustDomainStatus",
    doc = "A SPIFFE trust domain: the authority that issues the certificates of its service identities, and the trust bundle that verifies them.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63").message("metadata.name is part of the names of Secrets and ConfigMaps; use a DNS label of at most 63 characters (lower-case letters, digits and '-')"),
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain"),
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Authority-Until", type_ = "string", json_path = ".status.authority.notAfter"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.subjectIssuers) || has(self.tokens)").message("subjectIssuers: access tokens name their users, and none are issued; set tokens as well"))]
pub struct TrustDomainSpec {
    /// Name of the SPIFFE trust domain, such as `prod.shop.example`: lower-case letters, digits, dots, dashes and
    /// underscores (SPIFFE-ID, section 2.1). It is part of every SPIFFE ID. Immutable.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("domain is immutable, because it is part of every SPIFFE ID; create another TrustDomain"))]
    pub domain: String,

    /// Environment of this trust domain, such as `production`. It must equal the environment of the brokers that its
    /// identities use. Immutable.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("environment is immutable; create another TrustDomain for the other environment"))]
    pub environment: Environment,

    /// The authority that issues the certificates: exactly one of the fields below.
    #[x_kube(validation = Rule::new("has(self.selfSigned) != has(self.ca)").message("issuer: set exactly one of selfSigned and ca"))]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub issuer: Issuer,

    /// Where the trust bundle is published. Default: in the operator's namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub bundle: Option<Bundle>,

    /// DNS names that namespaces may claim in addition to the names of their own Services
    /// (`<service>.<namespace>.svc` and the same under the cluster domain).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub dns_names: Vec<DnsNameRule>,

    /// Namespaces that may have identities in this trust domain. Default: every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub identity_namespace_selector: Option<NamespaceSelector>,

    /// Longest lifetime of the certificates of identities, whatever a `RotationPolicy` says, such as `24h`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('5m') && duration(self) <= duration('9528h')").message("maxCertificateLifetime: use a duration such as 24h or 90m, at least 5m and at most 9528h (397 days)"))]
    pub max_certificate_lifetime: Option<String>,

    /// The access tokens of the identities of this trust domain. Default: none are issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub tokens: Option<Tokens>,

    /// The identity providers whose users the services of this trust domain may act for. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.issuer == a.issuer))").message("subjectIssuers: two of them have the same issuer; a token of it would be of both"))]
    pub subject_issuers: Vec<SubjectIssuer>,
}

/// The authority that issues the certificates.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// The operator creates a root and an intermediate, each in a Secret in its own namespace. Back these Secrets up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSignedIssuer>,

    /// An intermediate that you provide. Its root can stay offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaIssuer>,
}

/// An authority that the operator creates.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelfSignedIssuer {
    /// Algorithm of the keys of root and intermediate. Default: `ECDSA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
}

/// An authority that you provide.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaIssuer {
    /// Secret in the operator's namespace, in PEM: `tls.crt` (the intermediate, then every certificate of its chain without
    /// the root), `tls.key` (its private key, PKCS#8) and `ca.crt` (the roots that form the trust bundle).
    pub secret_ref: SecretReference,
}

/// Algorithm of keys: `ECDSA` (curve P-256), `Ed25519` or `RSA` (2048 bits). Default: `ECDSA`. Credentials for brokers are
/// always `ECDSA`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, JsonSchema)]
pub enum KeyAlgorithm {
    /// ECDSA on the NIST curve P-256.
    #[default]
    #[serde(rename = "ECDSA")]
    Ecdsa,
    /// Ed25519 (RFC 8410). Some TLS clients, among them Kafka's, do not support such keys.
    Ed25519,
    /// RSA with 2048 bits.
    #[serde(rename = "RSA")]
    Rsa,
}

impl KeyAlgorithm {
    /// The name in specs and annotations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        }
    }
}

/// Where the trust bundle is published.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// Namespaces that get a ConfigMap `<name of this TrustDomain>-trust-bundle` with the key `ca.crt` (PEM); `{}` selects
    /// every namespace. Default: only the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<NamespaceSelector>,

    /// Roots to trust in addition, each a text in PEM with one or more certificates of authorities: the former or the next root of
    /// this trust domain, while one succeeds the other. Each of them can issue every identity of the trust domain, at the edge and
    /// at brokers whose trust store has the bundle. Authorities of webhook callers belong into `caBundle` of their webhooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 65536)))]
    pub additional_roots: Vec<String>,
}

/// DNS names that some namespaces may claim.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsNameRule {
    /// Namespaces that may claim the names; `{}` selects every namespace.
    pub namespace_selector: NamespaceSelector,

    /// Suffixes such as `shop.example`: the name itself and every name below it may be claimed.
    #[schemars(
        length(min = 1, max = 64),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        )
    )]
    #[x_kube(validation = Rule::new("self.all(s, s != 'svc' && !s.endsWith('.svc') && s != 'local' && !s.endsWith('cluster.local'))").message("suffixes: names of Services belong to their namespaces and cannot be given away; remove suffixes under svc and cluster.local"))]
    pub suffixes: Vec<String>,
}

/// The state of a `TrustDomain`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustDomainStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions in the order of the work: `Accepted`, `AuthorityReady`, `BundlePublished`, `KeysReady` and
    /// `SubjectIssuersReady` where tokens are issued, `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The authority that signs at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityStatus>,

    /// The published trust bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,

    /// The keys that access tokens are signed with, the one that signs at present first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub token_keys: Vec<TokenKeyStatus>,

    /// The identity providers whose users services may act for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub subject_issuers: Vec<SubjectIssuerStatus>,
}

/// The authority that signs certificates.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Secret with the signing key, in the operator's namespace.
    pub secret_name: String,
    /// SHA-256 of the signing certificate (DER), in hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of the certificate of the embedded root (DER), in hexadecimal. A restored root must be this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_fingerprint: Option<String>,
    /// Until when the signing certificate is valid. No issued certificate is valid for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When the operator creates its successor; absent for an authority that you provide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<Time>,
}

/// The published trust bundle.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleStatus {
    /// Name of the ConfigMap in every selected namespace.
    pub config_map_name: String,
    /// SHA-256 of its `ca.crt`, in hexadecimal.
    pub hash: String,
    /// How many roots it holds.
    pub roots: u32,
    /// How many namespaces are selected.
    pub namespaces: u32,
    /// Namespaces where the bundle could not be published, with the reason; at most twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lagging: Vec<String>,
}

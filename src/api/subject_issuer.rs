//! Identity providers whose users services may act for.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NamespaceSelector, SecretReference};

/// An identity provider whose users services may act for: with a token of a user, a service gets an access token that names the user
/// as its subject, and the service as the one who acts.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectIssuer {
    /// Its name here, such as `customers`. It comes before the name of every user, as in `customers:4711`, so that users of two
    /// providers are never taken for each other. Do not give it to another provider later.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self != 'spiffe'").message("name: the subjects of services begin with spiffe:, so no user may have one; use another name"))]
    pub name: String,

    /// The claim `iss` of its tokens, such as `https://login.shop.example`.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[!-~]+$"))]
    pub issuer: String,

    /// Namespaces whose services may act for its users; `{}` selects every namespace.
    pub namespace_selector: NamespaceSelector,

    /// Audiences of its tokens that mean one of the services. The SPIFFE ID of a service always does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["audience".into()]))]
    pub audiences: Vec<SubjectAudience>,

    /// The algorithms that its tokens may be signed with. Default: `ES256` and `RS256`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub algorithms: Vec<SubjectAlgorithm>,

    /// The claim that names the user. It must never change for a user, and never name another one later. Default: `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub subject_claim: Option<String>,

    /// The tenant of its users. Default: they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub tenant: Option<TenantClaim>,

    /// Its public keys.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub keys: SubjectKeys,
}

/// An audience that means a service.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAudience {
    /// What the claim `aud` is or contains: often the ID that the provider gave to an application.
    #[schemars(length(min = 1, max = 255))]
    pub audience: String,
    /// The service.
    pub identity: IdentityName,
}

/// A `ServiceIdentity`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct IdentityName {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// An algorithm of signatures (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum SubjectAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// RSASSA-PKCS1-v1.5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
}

impl SubjectAlgorithm {
    /// The value of the parameter `alg`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }
}

/// Where the tenant of a user is found. A token without it, or with a list of them, is refused.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantClaim {
    /// The claim: one string.
    #[schemars(length(min = 1, max = 128))]
    pub claim: String,

    /// A regular expression (without look-around and back-references) that the whole value matches, 128 bytes at most.
    /// Default: letters, digits, `.`, `_` and `-`, beginning with a letter or a digit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pattern: Option<String>,
}

/// Where the public keys of a provider are found: a JWK Set (RFC 7517) of 32 KiB at most.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.url)").message("keys: set exactly one of secretRef and url"))]
#[x_kube(validation = Rule::new("!has(self.caBundle) || has(self.url)").message("keys: caBundle verifies the server of url; set url as well"))]
pub struct SubjectKeys {
    /// Secret in the operator's namespace that has it as `jwks.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,

    /// URL of it, `jwks_uri` in the metadata of the provider. The token issuer fetches it every five minutes, and when a token names a
    /// key that is not in it. It uses a cached one for a day when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 1024), regex(pattern = r"^https://[^@#\s]+$"))]
    #[x_kube(validation = Rule::new("isURL(self)").message("url: use https:// and a host, without user, password and fragment"))]
    pub url: Option<String>,

    /// Authorities that the certificate of the server is verified with, in PEM. Default: those of the public web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32768))]
    pub ca_bundle: Option<String>,
}

/// The state of an identity provider.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectIssuerStatus {
    /// Its name here.
    pub name: String,
    /// Whether services can act for its users.
    pub usable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

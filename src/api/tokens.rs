//! Signed tokens: who issues them, and who may call whom with which scopes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The access tokens of a trust domain.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// URL of the issuer, such as `https://tokens.prod.shop.example`: a host, and a port if it is not 443. It is the claim `iss` of every token,
    /// and its metadata and keys are found below it. No two trust domains have the same one.
    #[schemars(length(min = 9, max = 255), regex(pattern = r"^https://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?$"))]
    #[x_kube(validation = Rule::new("isURL(self) && !self.endsWith(':443')").message("issuer: use https:// and a host, with a port if it is not 443, such as https://tokens.prod.shop.example, without a path"))]
    pub issuer: String,

    /// How long an access token is valid, from `1m` to `15m`. It never outlives the certificate that it was asked for with. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1m') && duration(self) <= duration('15m')").message("accessTokenLifetime: use a duration such as 5m, at least 1m and at most 15m"))]
    pub access_token_lifetime: Option<String>,

    /// For how long a key is published before it signs, from `1m` to `720h`: longer than the verifiers keep a key set, whatever they are
    /// told. Some ask only every hour. Default: `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1m') && duration(self) <= duration('720h')").message("publishFor: use a duration such as 24h, at least 1m and at most 720h"))]
    pub publish_for: Option<String>,

    /// IDs of keys that somebody else may have, as `status.tokenKeys` names them. They sign nothing and are published no more, at once:
    /// tokens that they signed are refused as soon as verifiers ask for the keys again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tainted_keys: Vec<String>,
}

/// Tokens for calls to other services.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedToken {
    /// The services that this one calls, with the scopes that it needs. It gets a token for a service only if that one lists it in its
    /// `allowedCallers`, and only with the scopes that both name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub callees: Vec<CallRule>,

    /// Whether a token is of use only with the certificate that it was asked for with (RFC 8705 section 3). Then it ends when this
    /// one is renewed, and the service has to ask for another. Default: it is of use with any certificate of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_bound: Option<bool>,
}

/// Another service, and the scopes of calls between it and this one.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallRule {
    /// The identity of the other service. It belongs to the same trust domain.
    pub identity: ServiceReference,

    /// Scopes (RFC 6749 section 3.3), such as `orders:read`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64), regex(pattern = r"^[!#-\[\]-~]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
}

/// A reference to the `ServiceIdentity` of another service.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct ServiceReference {
    /// Name of the `ServiceIdentity`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Its namespace. Default: the namespace of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What tokens allow a service and its callers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallsStatus {
    /// Whom the service may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["identity".into()]))]
    pub callees: Vec<CallStatus>,
    /// Who may call the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["identity".into()]))]
    pub callers: Vec<CallStatus>,
    /// The subject issuers of the trust domain whose users the service may act for, when it is called with their tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub subject_issuers: Vec<String>,
}

/// Calls between this service and another one.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallStatus {
    /// The other identity, as `namespace/name`.
    pub identity: String,
    /// Whether tokens are issued for these calls: both sides agree.
    pub agreed: bool,
    /// The scopes that tokens may have: those that both sides name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
    /// What only one side says, or why no token is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A key that access tokens are signed with.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenKeyStatus {
    /// Its ID, as in the key set of the issuer: the thumbprint of its public key (RFC 7638).
    pub id: String,
    /// `Active`, `Prepared` or `Retiring`.
    pub phase: TokenKeyPhase,
    /// Since when it has this phase.
    pub since: Time,
    /// Since when it is published.
    pub published_since: Time,
    /// When a key that retires is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// The phase of a key that access tokens are signed with.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum TokenKeyPhase {
    /// It is published and signs nothing: it signs next.
    Prepared,
    /// It signs.
    Active,
    /// It signs no more, and is published until the last token that it signed has expired.
    Retiring,
}

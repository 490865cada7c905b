//! What the operator hands to the token issuer, in Secrets of its namespace: one document for each trust domain that issues tokens,
//! with its keys, and one for each namespace, with what its identities may ask for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::secret::{SecretText, serialize_exposed};

/// The entry of a Secret with an [`IssuerDocument`].
pub const ISSUER_ENTRY: &str = "issuer.json";
/// The longest key set of an identity provider, in bytes: those of a trust domain fit one Secret.
pub const MAX_KEY_SET: usize = 32 << 10;
/// The entry of a Secret with a [`CallsDocument`].
pub const CALLS_ENTRY: &str = "calls.json";

/// A trust domain that issues tokens.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerDocument {
    /// Name of the `TrustDomain`.
    pub trust_domain: String,
    /// Its UID: an object of the same name that is created later has another.
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
    /// Digest of everything else in the document, private keys aside.
    pub digest: String,
    /// URL of the issuer, without a slash at its end.
    pub issuer: String,
    /// How long an access token is valid, in seconds.
    pub access_token_seconds: u32,
    /// The authorities that vouch for SPIFFE IDs of the trust domain, in PEM.
    pub bundle: String,
    /// A number that grows with every change of the bundle.
    #[serde(default)]
    pub bundle_sequence: u64,
    /// The keys: the first one signs, and all are published.
    pub keys: Vec<TokenKeyDocument>,
    /// The identity providers whose users services may act for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_issuers: Vec<SubjectIssuerDocument>,
}

/// An identity provider whose users services may act for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubjectIssuerDocument {
    /// Its name within the trust domain: the first part of the subjects of its users.
    pub name: String,
    /// The claim `iss` of its tokens.
    pub issuer: String,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: BTreeSet<String>,
    /// The claim that names the user.
    pub subject_claim: String,
    /// Where the tenant of a user is found, if its users have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantDocument>,
    /// Its public keys.
    pub keys: SubjectKeysDocument,
}

/// The public keys of an identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SubjectKeysDocument {
    /// A JWK Set.
    Jwks(String),
    /// Where they are fetched.
    Url(KeySetUrl),
}

/// Where a JWK Set is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySetUrl {
    /// The URL.
    pub url: String,
    /// The authorities that the server is verified with, in PEM; those of the public web if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
}

/// Where the tenant of a user is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantDocument {
    /// The claim.
    pub claim: String,
    /// A regular expression that the whole value matches.
    pub pattern: String,
}

/// A key that tokens are signed with: ECDSA on P-256.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenKeyDocument {
    /// Its ID: the thumbprint of its public key (RFC 7638).
    pub id: String,
    /// The private key, in PEM (PKCS#8).
    #[serde(serialize_with = "serialize_exposed")]
    pub key: SecretText,
}

/// The calls that the identities of a namespace may ask tokens for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallsDocument {
    /// By the name of the identity that calls.
    pub callers: BTreeMap<String, CallerDocument>,
}

/// The calls of one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallerDocument {
    /// Name of its `TrustDomain`.
    pub trust_domain: String,
    /// Its SPIFFE ID.
    #[serde(rename = "spiffeID")]
    pub spiffe_id: String,
    /// The scopes of each service that it may call, by the SPIFFE ID of the service.
    pub callees: BTreeMap<String, BTreeSet<String>>,
    /// The audiences of tokens that name users who it may act for, by the name of the identity provider. Its SPIFFE ID is always one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, BTreeSet<String>>,
    /// Whether its tokens are bound to the certificate that they were asked for with.
    #[serde(default, skip_serializing_if = "is_false")]
    pub certificate_bound: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_providers(issuer: &str) -> String {
        let common = r#""algorithms":["ES256"],"subjectClaim":"sub""#;
        let given = format!(
            r#"{{"name":"customers","issuer":"https://a",{common},"tenant":{{"claim":"org","pattern":".*"}},"keys":{{"jwks":"k"}}}}"#
        );
        let fetched =
            format!(r#"{{"name":"staff","issuer":"https://b",{common},"keys":{{"url":{{"url":"https://b/keys"}}}}}}"#);
        format!(r#"{issuer},"subjectIssuers":[{given},{fetched}]}}"#)
    }

    #[test]
    fn documents_keep_their_stored_form() {
        let issuer = concat!(
            r#"{"trustDomain":"demo","uid":"u1","generation":3,"digest":"abc","issuer":"https://tokens.example","accessTokenSeconds":300,"bundle":"b","bundleSequence":7,"#,
            r#""keys":[{"id":"k1","key":"p"},{"id":"k2","key":"q"}]"#
        );
        let before = format!("{issuer}}}");
        let read: IssuerDocument = serde_json::from_str(&before).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), before);
        let issuer = with_providers(issuer);
        let read: IssuerDocument = serde_json::from_str(&issuer).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), issuer);
        let calls = concat!(
            r#"{"callers":{"shop":{"trustDomain":"demo","spiffeID":"spiffe://d/ns/a/sa/shop","#,
            r#""callees":{"spiffe://d/ns/b/sa/pay":["pay:write"]}},"#,
            r#""web":{"trustDomain":"demo","spiffeID":"spiffe://d/ns/a/sa/web","callees":{},"users":{"customers":["web-shop"]},"certificateBound":true}}}"#
        );
        let read: CallsDocument = serde_json::from_str(calls).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), calls);
    }
}

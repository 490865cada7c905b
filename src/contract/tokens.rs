//! What the operator hands to the token issuer, in Secrets of its namespace: one document for each trust domain that issues tokens,
//! with its keys, and one for each namespace, with what its identities may ask for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::secret::{SecretText, serialize_exposed};

/// The entry of a Secret with an [`IssuerDocument`].
pub const ISSUER_ENTRY: &str = "issuer.json";
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
    /// The keys: the first one signs, and all are published.
    pub keys: Vec<TokenKeyDocument>,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_stored_form() {
        let issuer = concat!(
            r#"{"trustDomain":"demo","uid":"u1","generation":3,"digest":"abc","issuer":"https://tokens.example","accessTokenSeconds":300,"bundle":"b","#,
            r#""keys":[{"id":"k1","key":"p"},{"id":"k2","key":"q"}]}"#
        );
        let read: IssuerDocument = serde_json::from_str(issuer).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), issuer);
        let calls = concat!(
            r#"{"callers":{"shop":{"trustDomain":"demo","spiffeID":"spiffe://d/ns/a/sa/shop","#,
            r#""callees":{"spiffe://d/ns/b/sa/pay":["pay:write"]}}}}"#
        );
        let read: CallsDocument = serde_json::from_str(calls).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), calls);
    }
}

//! The report of a replica of the edge: which routes it serves, and when each key was last used. The edge writes it as a
//! ConfigMap in its own namespace; the operator reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The entry of the ConfigMap that holds the report.
pub const REPORT_ENTRY: &str = "report.json";

/// Which routes one replica serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By the UID of the webhook.
    pub endpoints: BTreeMap<String, ServedRoute>,
}

/// How one replica serves one webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedRoute {
    /// Generation of the webhook's spec.
    pub generation: i64,
    /// Digest of the route document.
    pub route: String,
    /// When each key last verified or signed a delivery, by the ID of the key: seconds since 1970, rounded down to ten minutes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, i64>,
    /// Why it refuses deliveries of this webhook, whatever they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<RefusalCause>,
    /// Of a trust domain: the identity providers whose key sets cannot be fetched, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub key_sets: BTreeMap<String, KeySetReport>,
}

/// A key set that cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySetReport {
    /// Why not.
    pub problem: FetchProblem,
    /// Whether a cached one is used.
    pub cached: bool,
}

/// Why a key set cannot be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchProblem {
    /// There is no connection, or no whole answer in time.
    Unreachable,
    /// The address policy refuses the address.
    AddressRefused,
    /// The certificate of the server is not trusted.
    Untrusted,
    /// The answer has another status than 200.
    WrongStatus,
    /// The answer is too long.
    TooLong,
    /// The answer is not a JWK Set with keys that can be used.
    Unusable,
    /// What another version reports.
    #[serde(other)]
    Other,
}

impl FetchProblem {
    /// What has happened, and what to do.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unreachable => "the server cannot be reached, or does not answer within 10 seconds",
            Self::AddressRefused => "its address is one of this machine, link-local or of a metadata service",
            Self::Untrusted => {
                "the certificate of the server is not trusted; set caBundle if a private authority issued it"
            }
            Self::WrongStatus => {
                "the server does not answer with status 200; name the key set itself, redirects are not followed"
            }
            Self::TooLong => "the answer is longer than 32 KiB",
            Self::Unusable => "the answer is not a JWK Set with keys for ES256, EdDSA, RS256 or PS256",
            Self::Other => "see the log of the token issuer",
        }
    }
}

/// Why a replica refuses deliveries of a webhook, whatever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCause {
    /// The namespace has used up its share of the delivery history within the last ten minutes.
    ReplayShareExhausted,
    /// The Redis with the delivery history evicts keys.
    ReplayStoreEvicts,
    /// What another version reports.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_keeps_its_stored_form() {
        let stored = r#"{"endpoints":{"u1":{"generation":3,"route":"abc","used":{"k1":600}},"u2":{"generation":1,"route":"d"},"u3":{"generation":1,"route":"d","refuses":"ReplayStoreEvicts"}}}"#;
        let report: Report = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), stored);
        let later: ServedRoute = serde_json::from_str(r#"{"generation":1,"route":"d","refuses":"Later"}"#).unwrap();
        assert_eq!(later.refuses, Some(RefusalCause::Other));
    }
}

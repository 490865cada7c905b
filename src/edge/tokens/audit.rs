//! The audit record: one for each request for a token, refused ones included.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::outcome::Reason;

/// What the audit log says about one request for a token. Tokens are never in here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// When the issuer had read the request head.
    pub time: Timestamp,
    /// The transaction: an ID that the issuer gives to each request (UUID version 7, RFC 9562).
    pub txn: Uuid,
    /// What was asked for: an `AccessToken` in the client's own name, or a `TokenExchange`; empty when the request could not be read.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request: &'static str,
    /// Name of the `TrustDomain`, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// `Issued` or `Refused`.
    pub result: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Address of the client.
    pub source: IpAddr,
    /// SPIFFE ID of the client, once its certificate was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// SPIFFE ID of the service that the token is for, if the client may call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Whom the client acts for: a user, as `<subject issuer>:<name>`, or a service by its SPIFFE ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The tenant of that user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The scopes of the token.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub scopes: BTreeSet<String>,
    /// ID of the token: its claim `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
}

impl AuditRecord {
    /// A record of a request that begins now.
    #[must_use]
    pub fn begin(source: IpAddr, trust_domain: Option<&str>) -> Self {
        Self {
            time: Timestamp::now(),
            txn: Uuid::now_v7(),
            request: "",
            trust_domain: trust_domain.map(ToOwned::to_owned),
            result: "",
            reason: "",
            source,
            client: None,
            audience: None,
            subject: None,
            tenant: None,
            scopes: BTreeSet::new(),
            token: None,
        }
    }

    /// Says what became of it.
    pub fn end(&mut self, reason: Reason) {
        (self.result, self.reason) = (if reason == Reason::Issued { "Issued" } else { "Refused" }, reason.as_str());
    }
}

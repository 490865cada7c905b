//! The audit record: one for each request, refused ones included.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::outcome::{Outcome, Reason};

/// What the audit log says about one request. What the caller sent is limited in length and escaped; keys and bodies are never
/// in here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// When the edge had read the request head.
    pub time: Timestamp,
    /// The transaction: an ID that the edge gives to each request (UUID version 7, RFC 9562). What the target gets is signed with it.
    pub txn: Uuid,
    /// `namespace/name` of the endpoint, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Arc<str>>,
    /// `Inbound` or `Outbound`, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// The result, and the reason for it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// ID of the delivery: the sender's, or else derived from what is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The key that verified it, or the keys that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Address of the caller.
    pub source: IpAddr,
    /// SPIFFE ID or first DNS name of the caller's certificate, as far as the authorities of this webhook vouch for them, or else the
    /// subject of its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// The target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The HTTP status with which the target answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_status: Option<u16>,
    /// Why the destination did not accept it, if it went to the dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Reason>,
    /// SHA-256 of the body, in hexadecimal, once the body was read.
    #[serde(rename = "bodySHA256", skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    /// Time from the request head to the answer.
    #[serde(rename = "durationMilliseconds", serialize_with = "milliseconds")]
    pub duration: Duration,
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // To the microsecond: more digits say nothing.
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

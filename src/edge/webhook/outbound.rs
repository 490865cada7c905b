//! Outbound deliveries: what a service of the cluster posts is signed and brought to its destination; what the destination does
//! not accept goes to the dead letter.

use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use uuid::Uuid;

use super::assertion::AssertionClaims;
use super::audit::AuditRecord;
use super::deliver::delivery::Delivery;
use super::deliver::retry::Answer;
use super::deliver::target::Target;
use super::gateway::Gateway;
use super::outcome::Reason;
use super::received::Received;
use super::replay;
use super::route::OutboundRoute;
use super::signing::{Signed, sign};
use super::table::ActiveRoute;
use super::verify::header::delivery_id;
use crate::domain::identity::hex;
use crate::edge::front::Party;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Tells a dead letter why the destination did not accept the delivery.
const FAILURE: HeaderName = HeaderName::from_static("credence-failure");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("credence/", env!("CARGO_PKG_VERSION")));

/// A message that a service sends out.
pub struct OutboundMessage {
    id: String,
    txn: Uuid,
    /// Headers of the sender that are forwarded.
    headers: HeaderMap,
    endpoint: Arc<str>,
    source: Option<String>,
    body_sha256: [u8; 32],
    body: Bytes,
}

/// Makes of a request the message that is sent out.
///
/// # Errors
/// Why it is refused.
pub fn accept(
    outbound: &OutboundRoute,
    active: &ActiveRoute,
    received: &Received,
    record: &mut AuditRecord,
) -> Result<OutboundMessage, Reason> {
    let id = match delivery_id(&received.parts.headers, &ID).map_err(|_| Reason::WrongDeliveryId)? {
        Some(id) => id,
        None => new_id().ok_or(Reason::NotReady)?,
    };
    record.delivery = Some(id.clone());
    if !outbound.keys.iter().any(|key| key.is_live(Timestamp::now())) {
        return Err(Reason::NoKey);
    }
    Ok(OutboundMessage {
        id,
        txn: record.txn,
        headers: received.forwarded(&active.route),
        endpoint: received.endpoint.clone(),
        source: record.source_identity.clone(),
        body_sha256: received.body_sha256,
        body: received.body.clone(),
    })
}

/// Brings a message to its destination, or else to the dead letter.
pub async fn deliver(
    outbound: &Arc<OutboundRoute>,
    gateway: &Gateway,
    active: &ActiveRoute,
    message: OutboundMessage,
    record: &mut AuditRecord,
) -> Reason {
    let party = active.route.party(record.source);
    let destination = &outbound.destination;
    record.target = Some(destination.audience.clone());
    let Some(_slot) = destination.slot() else { return Reason::TargetBusy };
    let (reason, status) =
        destination.retry.run(&gateway.stopping, || attempt(outbound, gateway, &message, &party)).await;
    record.target_status = status;
    let signed: Vec<&str> = live_keys(outbound, Timestamp::now()).collect();
    record.key = (!signed.is_empty()).then(|| signed.join(","));
    if reason == Reason::Delivered {
        for key in signed {
            active.used(key, Timestamp::now());
        }
        return reason;
    }
    let Some(dead_letter) = &outbound.dead_letter else { return reason };
    record.failure = Some(reason);
    let Ok(delivery) = into_dead_letter(message, gateway, active, outbound, dead_letter, reason) else { return reason };
    match gateway.targets.deliver(dead_letter, &delivery).await {
        (Reason::Delivered, _) => Reason::DeadLettered,
        (failed, status) => {
            let Delivery { endpoint, id, .. } = delivery;
            tracing::warn!(%endpoint, delivery = id, reason = failed.as_str(), status, "dead letter was not accepted");
            reason
        }
    }
}

/// Signs anew for each attempt: receivers refuse what was signed long ago.
async fn attempt(outbound: &Arc<OutboundRoute>, gateway: &Gateway, message: &OutboundMessage, party: &Party) -> Answer {
    let (keys, id, body) = (outbound.clone(), message.id.clone(), message.body.clone());
    let signing = move || sign(&keys.keys, &id, &body, Timestamp::now());
    let signed = gateway.turns.run(outbound.work(message.body.len()), party.clone(), signing).await;
    match signed.and_then(|signed| signed_headers(message, &signed)) {
        Some(headers) => outbound.destination.attempt(headers, message.body.clone()).await,
        None => Answer::permanent(Reason::NoKey, None),
    }
}

fn signed_headers(message: &OutboundMessage, signed: &Signed) -> Option<HeaderMap> {
    let mut headers = message.headers.clone();
    headers.insert(ID, HeaderValue::from_str(&message.id).ok()?);
    headers.insert(TIMESTAMP, HeaderValue::from_str(&signed.timestamp).ok()?);
    headers.insert(SIGNATURE, HeaderValue::from_str(&signed.signatures).ok()?);
    headers.insert(header::USER_AGENT, USER_AGENT);
    Some(headers)
}

fn live_keys(outbound: &OutboundRoute, now: Timestamp) -> impl Iterator<Item = &str> {
    outbound.keys.iter().filter(move |key| key.is_live(now)).map(|key| key.id.as_str())
}

fn into_dead_letter(
    message: OutboundMessage,
    gateway: &Gateway,
    active: &ActiveRoute,
    outbound: &OutboundRoute,
    dead_letter: &Target,
    failure: Reason,
) -> Result<Delivery, Reason> {
    let claims = AssertionClaims {
        audience: dead_letter.audience(),
        delivery: &message.id,
        txn: message.txn,
        endpoint: &message.endpoint,
        key_id: None,
        failure: Some(failure.as_str()),
        source: message.source.as_deref(),
        body_sha256: URL_SAFE_NO_PAD.encode(message.body_sha256),
    };
    let assertion = gateway.sign_assertion(outbound.shared_keys.as_ref(), &claims, Timestamp::now())?;
    let mut headers = message.headers;
    headers.insert(FAILURE, HeaderValue::from_static(failure.as_str()));
    Ok(Delivery {
        headers,
        identity: replay::identity(&active.route.webhook, message.id.as_bytes()),
        assertion,
        endpoint: message.endpoint,
        id: message.id,
        body_sha256: message.body_sha256,
        body: message.body,
    })
}

/// An ID for a message to which its sender gave none.
fn new_id() -> Option<String> {
    let mut random = [0; 16];
    rand::fill(&mut random).ok()?;
    Some(format!("msg_{}", hex(&random)))
}

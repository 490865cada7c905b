//! Inbound deliveries: verified, reserved in the delivery history, and handed to their target.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::assertion::AssertionClaims;
use super::audit::AuditRecord;
use super::deliver::delivery::Delivery;
use super::gateway::Gateway;
use super::outcome::Reason;
use super::received::Received;
use super::replay::{self, Identity, ReserveError};
use super::route::InboundRoute;
use super::table::ActiveRoute;
use super::verify::{SignedRequest, Verified};
use crate::contract::route::WebhookReference;
use crate::domain::identity::hex;
use crate::edge::front::network_of;
use crate::edge::http::head;

/// A request whose signature is that of a live key.
pub struct Checked {
    verified: Verified,
    identity: Result<Identity, Reason>,
}

/// Verifies a request. Everything that takes long with a long body or with many keys is done here.
///
/// # Errors
/// Why it is refused.
pub fn check(inbound: &InboundRoute, webhook: &WebhookReference, received: &Received) -> Result<Checked, Reason> {
    let now = Timestamp::now();
    if !inbound.keys.iter().any(|key| key.is_live(now)) {
        return Err(Reason::NoKey);
    }
    let verified = verify(inbound, received, now)?;
    let identity = identity(inbound, webhook, &verified, &received.body);
    Ok(Checked { verified, identity })
}

/// Makes the delivery that the target gets.
///
/// # Errors
/// Why it is refused.
pub fn accept(
    inbound: &InboundRoute,
    gateway: &Gateway,
    active: &ActiveRoute,
    received: &Received,
    Checked { verified, identity }: Checked,
    record: &mut AuditRecord,
) -> Result<Delivery, Reason> {
    let (route, now) = (&active.route, Timestamp::now());
    record.key = Some(verified.key_id.clone());
    let identity = identity?;
    let id = verified.delivery_id.clone().unwrap_or_else(|| hex(&identity[..16]));
    record.delivery = Some(id.clone());
    active.used(&verified.key_id, now);
    let claims = AssertionClaims {
        audience: inbound.target.audience(),
        delivery: &id,
        txn: record.txn,
        endpoint: &received.endpoint,
        key_id: Some(&verified.key_id),
        failure: None,
        source: record.source_identity.as_deref(),
        body_sha256: URL_SAFE_NO_PAD.encode(received.body_sha256),
    };
    Ok(Delivery {
        headers: received.forwarded(route),
        identity,
        assertion: gateway.sign_assertion(inbound.shared_keys.as_ref(), &claims, now)?,
        endpoint: received.endpoint.clone(),
        id,
        body_sha256: received.body_sha256,
        body: received.body.clone(),
    })
}

/// Reserves the delivery, and hands it to the target.
pub async fn deliver(
    inbound: &InboundRoute,
    gateway: &Gateway,
    active: &ActiveRoute,
    delivery: Delivery,
    record: &mut AuditRecord,
) -> Reason {
    let (history, rules, target) = (&gateway.history, &inbound.replay, &inbound.target);
    let namespace = &active.route.namespace;
    let reservation = match history.reserve(rules.store, namespace, delivery.identity, target.max_duration()).await {
        Ok(reservation) => reservation,
        Err(error) => {
            match error {
                ReserveError::Replayed => active.rate.replayed(network_of(record.source), Instant::now()),
                ReserveError::ShareExhausted => active.exhausted_its_share(Timestamp::now()),
                ReserveError::InProgress | ReserveError::Unavailable | ReserveError::Evicts => {}
            }
            return error.into();
        }
    };
    record.target = Some(target.audience().to_owned());
    let (reason, status) = gateway.targets.deliver(target, &delivery).await;
    record.target_status = status;
    if reason == Reason::Delivered {
        history.confirm(reservation, rules.window).await;
    } else {
        history.release(reservation).await;
    }
    reason
}

fn verify(inbound: &InboundRoute, received: &Received, now: Timestamp) -> Result<Verified, Reason> {
    let parts = &received.parts;
    let request = SignedRequest {
        method: &parts.method,
        uri: &parts.uri,
        authority: head::authority(parts),
        external_url: inbound.external_url.as_deref(),
        headers: &parts.headers,
        body: &received.body,
    };
    Ok(inbound.scheme.verify(&inbound.keys, &request, &inbound.window, now)?)
}

/// What makes a delivery the same when it is sent again: within its webhook, what is signed, or the idempotency key in the body.
fn identity(
    inbound: &InboundRoute,
    webhook: &WebhookReference,
    verified: &Verified,
    body: &[u8],
) -> Result<Identity, Reason> {
    let Some(pointer) = &inbound.replay.idempotency_key else {
        return Ok(replay::identity(webhook, &verified.identity));
    };
    let key = pointer.find(body).ok_or(Reason::NoIdempotencyKey)?;
    Ok(replay::identity(webhook, key.as_bytes()))
}

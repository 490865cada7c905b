//! The way of one request. Each step either goes on or says why not; whatever comes of it is one audit line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use super::Edge;
use super::assertion::Claims;
use super::audit::Attempt;
use super::deliver::Parcel;
use super::outcome::Why;
use super::replay::{Claim, Identity};
use super::route::Route;
use super::source::Caller;
use super::table::Served;
use super::verify::{Delivery, Verified, verify};
use crate::domain::identity::hex;

/// How long a whole body may take to come.
const BODY: Duration = Duration::from_secs(20);
/// For how long the body of a refused request is read, and how much of it.
const DRAIN: (Duration, usize) = (Duration::from_secs(1), 64 << 10);

/// Handles one request. What was accepted is finished even if its caller goes away meanwhile.
pub async fn handle(edge: Arc<Edge>, caller: Arc<Caller>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let mut body = Some(body);
    let mut attempt = Attempt {
        time: Timestamp::now(),
        endpoint: None,
        outcome: Why::UnknownPath.into(),
        delivery: None,
        key: None,
        source: caller.address,
        source_identity: caller.identity().map(ToOwned::to_owned),
        target: None,
        target_status: None,
        body_sha256: None,
        duration: Duration::ZERO,
    };
    let why = match accept(&edge, &caller, &parts, &mut body, &mut attempt).await {
        Err(why) => {
            drain(body).await;
            why
        }
        Ok(accepted) => {
            let (edge, mut own) = (edge.clone(), attempt.clone());
            let finished = edge.work.clone().spawn(async move {
                let why = accepted.deliver(&edge, &mut own).await;
                (why, own)
            });
            match finished.await {
                Ok((why, own)) => {
                    attempt = own;
                    why
                }
                // It has panicked, which is a defect; its claim ends by itself.
                Err(_) => Why::TargetUnreachable,
            }
        }
    };
    attempt.outcome = why.into();
    attempt.duration = began.elapsed();
    edge.record(&attempt);
    answer(why)
}

/// Reads what a refused caller is still sending, within bounds: many would otherwise see a broken connection in place of
/// the answer.
async fn drain(body: Option<Incoming>) {
    if let Some(body) = body {
        let _ = timeout(DRAIN.0, Limited::new(body, DRAIN.1).collect()).await;
    }
}

/// What a caller is told: whether to try again, and nothing else.
fn answer(why: Why) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = why.status();
    if why == Why::WrongMethod {
        response.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static("POST"));
    }
    response
}

/// A delivery that was verified and claimed.
struct Accepted {
    served: Arc<Served>,
    claim: Claim,
    parcel: Parcel,
}

async fn accept(
    edge: &Edge,
    caller: &Caller,
    parts: &Parts,
    body: &mut Option<Incoming>,
    attempt: &mut Attempt,
) -> Result<Accepted, Why> {
    let served = edge.routes.load().find(parts.uri.path()).ok_or(Why::UnknownPath)?;
    let route = &served.route;
    let endpoint = format!("{}/{}", route.endpoint.namespace, route.endpoint.name);
    attempt.endpoint = Some(endpoint.clone());
    attempt.source = route.pin.address(caller, &parts.headers);
    if parts.method != Method::POST {
        return Err(Why::WrongMethod);
    }
    if !route.pin.admits(caller, &parts.headers) {
        return Err(Why::WrongSource);
    }
    if !served.rate.admits(attempt.source, Instant::now()) {
        return Err(Why::TooMany);
    }
    check_framing(parts, route)?;
    let body = read(body.take().ok_or(Why::Malformed)?, route.limits.body).await?;
    let body_sha256 = hex(digest(&SHA256, &body).as_ref());
    attempt.body_sha256 = Some(body_sha256.clone());
    let verified = check_signature(route, parts, &body)?;
    attempt.key = Some(verified.key_id.clone());
    let identity = identity(route, &verified, &body)?;
    let delivery = verified.delivery_id.clone().unwrap_or_else(|| hex(&identity[..16]));
    attempt.delivery = Some(delivery.clone());
    served.verified_with(&verified.key_id);
    let assertion = {
        let signer = edge.credentials.signer.load_full().ok_or(Why::NotReady)?;
        let claims = Claims {
            audience: route.target.audience(),
            delivery: &delivery,
            endpoint: &endpoint,
            key_id: &verified.key_id,
            source: caller.identity(),
            body_sha256: URL_SAFE_NO_PAD.encode(digest(&SHA256, &body)),
        };
        signer.sign(&claims, Timestamp::now()).ok_or(Why::NotReady)?
    };
    let claim = edge.replays.claim(route.replay.store, identity, route.target.takes()).await?;
    let headers = forwarded(route, &parts.headers);
    let parcel = Parcel { headers, identity, endpoint, delivery, assertion, body_sha256, body };
    Ok(Accepted { served, claim, parcel })
}

impl Accepted {
    async fn deliver(self, edge: &Edge, attempt: &mut Attempt) -> Why {
        let Self { served, claim, parcel } = self;
        let route = &served.route;
        attempt.target = Some(route.target.audience().to_owned());
        let (why, status) = edge.targets.deliver(&route.target, &parcel).await;
        attempt.target_status = status;
        if why == Why::Delivered {
            edge.replays.keep(claim, route.replay.window).await;
        } else {
            edge.replays.give_back(claim).await;
        }
        why
    }
}

/// Refuses what can be read in two ways before anything of the body is read.
fn check_framing(parts: &Parts, route: &Route) -> Result<(), Why> {
    let headers = &parts.headers;
    if headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Why::Malformed);
    }
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if encoded && !route.forward.contains(&header::CONTENT_ENCODING) {
        return Err(Why::Encoded);
    }
    Ok(())
}

async fn read(body: Incoming, most: usize) -> Result<Bytes, Why> {
    if body.size_hint().lower() > most as u64 {
        return Err(Why::BodyTooLarge);
    }
    match timeout(BODY, Limited::new(body, most).collect()).await {
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Why::BodyTooLarge),
        Err(_) | Ok(Err(_)) => Err(Why::BodyTimeout),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

fn check_signature(route: &Route, parts: &Parts, body: &[u8]) -> Result<Verified, Why> {
    let host = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(http::uri::Authority::as_str).or_else(host);
    let delivery = Delivery {
        method: &parts.method,
        uri: &parts.uri,
        authority: authority.unwrap_or_default(),
        external_url: route.external_url.as_deref(),
        headers: &parts.headers,
        body,
    };
    Ok(verify(&route.scheme, &route.keys, &delivery, &route.window, Timestamp::now())?)
}

/// What makes a delivery the same when it comes again: within its endpoint, what is signed, or the idempotency key in it.
fn identity(route: &Route, verified: &Verified, body: &[u8]) -> Result<Identity, Why> {
    let mut text = route.endpoint.uid.clone().into_bytes();
    text.push(0);
    match &route.replay.idempotency_key {
        None => text.extend(verified.identity),
        Some(pointer) => {
            let value: Value = serde_json::from_slice(body).map_err(|_| Why::NoIdempotencyKey)?;
            match value.pointer(pointer) {
                Some(Value::String(key)) if !key.is_empty() => text.extend(key.as_bytes()),
                Some(Value::Number(key)) => text.extend(key.to_string().as_bytes()),
                _ => return Err(Why::NoIdempotencyKey),
            }
        }
    }
    let mut identity = [0; 32];
    identity.copy_from_slice(digest(&SHA256, &text).as_ref());
    Ok(identity)
}

fn forwarded(route: &Route, headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in &route.forward {
        for value in headers.get_all(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}

//! The way of one request. Each step either goes on or says why not; whatever comes of it is one audit line.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use tokio::time::timeout;

use super::Edge;
use super::audit::Attempt;
use super::deliver::Parcel;
use super::inbound::Inbound;
use super::outbound::{Letter, Outbound};
use super::outcome::Why;
use super::room::Place;
use super::route::{Route, Way};
use super::source::Caller;
use super::table::Served;
use crate::domain::identity::hex;

/// How long a whole body may take to come.
const BODY: Duration = Duration::from_secs(20);
/// For how long the body of a refused request is read, and how much of it.
const DRAIN: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

/// An attempt that will be on record whatever becomes of it, also when its caller takes the request back.
pub struct OnRecord {
    edge: Arc<Edge>,
    attempt: Attempt,
    began: Instant,
}

impl OnRecord {
    /// An attempt that begins now. Left alone, its caller went away.
    pub fn begin(edge: Arc<Edge>, caller: &Caller) -> Self {
        let attempt = Attempt {
            time: Timestamp::now(),
            endpoint: None,
            direction: None,
            outcome: Why::BodyIncomplete.into(),
            delivery: None,
            key: None,
            source: caller.address,
            source_identity: caller.identity().map(ToOwned::to_owned),
            target: None,
            target_status: None,
            failure: None,
            body_sha256: None,
            duration: Duration::ZERO,
        };
        Self { edge, attempt, began: Instant::now() }
    }

    /// Puts it on record.
    pub fn ends(mut self, why: Why) {
        self.attempt.outcome = why.into();
    }
}

impl Drop for OnRecord {
    fn drop(&mut self) {
        self.attempt.duration = self.began.elapsed();
        self.edge.record(&self.attempt);
    }
}

/// Handles one request. What was accepted is finished even if its caller goes away meanwhile.
pub async fn handle(edge: Arc<Edge>, caller: Arc<Caller>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, mut body) = request.into_parts();
    let mut record = OnRecord::begin(edge.clone(), &caller);
    let accepted = match accept(&edge, &caller, &parts, &mut body, &mut record.attempt).await {
        Ok(accepted) => accepted,
        Err(why) => {
            record.ends(why);
            // Who asks before sending a body is spared sending it.
            if !parts.headers.contains_key(header::EXPECT) {
                let _ = timeout(DRAIN.0, drain(body)).await;
            }
            return answer(why);
        }
    };
    // What it is if the delivery panics, which is a defect; its claim ends by itself.
    record.attempt.outcome = Why::TargetUnreachable.into();
    let finished = edge.work.clone().spawn(async move {
        let why = accepted.deliver(&edge, &mut record.attempt).await;
        record.ends(why);
        why
    });
    answer(finished.await.unwrap_or(Why::TargetUnreachable))
}

/// Reads what a refused caller is still sending, within bounds: many would otherwise see a broken connection in place of
/// the answer.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN.1;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(less) = left.checked_sub(length) else { return };
        left = less;
    }
}

/// What a caller is told: whether to try again, and nothing else.
fn answer(why: Why) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = why.status();
    if why == Why::WrongMethod {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// A request as it was read, for either way.
pub(super) struct Received<'a> {
    pub parts: &'a Parts,
    /// The webhook, as `namespace/name`.
    pub endpoint: String,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// The body, whole.
    pub body: Bytes,
}

impl Received<'_> {
    /// The headers that may travel on.
    pub fn forwarded(&self, route: &Route) -> HeaderMap {
        let mut kept = HeaderMap::new();
        for name in &route.forward {
            for value in self.parts.headers.get_all(name) {
                kept.append(name, value.clone());
            }
        }
        kept
    }
}

/// What is to be done with what was accepted.
enum Errand {
    In(Arc<Inbound>, Parcel),
    Out(Arc<Outbound>, Letter),
}

/// A delivery that was accepted, and whose claim and way to the target are nobody's to take back.
struct Accepted {
    served: Arc<Served>,
    errand: Errand,
    /// Given back when the delivery is over.
    _room: Place,
}

async fn accept(
    edge: &Edge,
    caller: &Caller,
    parts: &Parts,
    body: &mut Incoming,
    attempt: &mut Attempt,
) -> Result<Accepted, Why> {
    check_authority(parts)?;
    // Only the path leads to an endpoint; a query leads nowhere, and goes no further than to the signature.
    let served = edge.routes.load().find(parts.uri.path()).ok_or(Why::UnknownPath)?;
    let route = &served.route;
    let endpoint = format!("{}/{}", route.endpoint.namespace, route.endpoint.name);
    attempt.endpoint = Some(endpoint.clone());
    attempt.direction = Some(route.way.as_str());
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
    // After the rate, which bounds what strangers can make the edge compute.
    if let Some(pin) = &route.token {
        let proven = pin.caller(&parts.headers, Timestamp::now())?;
        attempt.source_identity.get_or_insert(proven);
    }
    check_encoding(&parts.headers, route)?;
    let mut room = edge.room.body(attempt.source);
    let reading = read(body, route.limits.body, &mut room);
    let body = timeout(BODY, reading).await.map_err(|_| Why::BodyTimeout)??;
    let mut body_sha256 = [0; 32];
    body_sha256.copy_from_slice(digest(&SHA256, &body).as_ref());
    attempt.body_sha256 = Some(hex(&body_sha256));
    let received = Received { parts, endpoint, body_sha256, body };
    let errand = match &route.way {
        Way::Inbound(way) => Errand::In(way.clone(), way.accept(edge, &served, &received, attempt)?),
        Way::Outbound(way) => Errand::Out(way.clone(), way.accept(&served, &received, attempt)?),
    };
    Ok(Accepted { served, errand, _room: room })
}

impl Accepted {
    async fn deliver(self, edge: &Edge, attempt: &mut Attempt) -> Why {
        let Self { served, errand, _room } = self;
        match errand {
            Errand::In(way, parcel) => way.deliver(edge, parcel, attempt).await,
            Errand::Out(way, letter) => way.deliver(edge, &served, letter, attempt).await,
        }
    }
}

/// Refuses a request that names its host twice, not at all, or as a proxy is asked: whoever stands before the edge may
/// have read it another way.
fn check_authority(parts: &Parts) -> Result<(), Why> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Why::Malformed);
    }
    let plain = |host: &HeaderValue| {
        Authority::try_from(host.as_bytes()).is_ok_and(|authority| !authority.as_str().contains('@'))
    };
    let right = match (parts.uri.authority(), host) {
        (Some(authority), host) => {
            let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
            parts.version == Version::HTTP_2 && host.is_none_or(same)
        }
        (None, Some(host)) => plain(host),
        (None, None) => parts.version == Version::HTTP_10,
    };
    if right { Ok(()) } else { Err(Why::Malformed) }
}

fn check_encoding(headers: &HeaderMap, route: &Route) -> Result<(), Why> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let encoded = encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded && !route.forward.contains(&header::CONTENT_ENCODING) {
        return Err(Why::Encoded);
    }
    Ok(())
}

/// Reads a body into one piece: kept as it came, one that comes byte by byte would take many times its length.
async fn read(body: &mut Incoming, most: usize, room: &mut Place) -> Result<Bytes, Why> {
    if body.size_hint().lower() > most as u64 {
        return Err(Why::BodyTooLarge);
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > most - whole.len() {
            return Err(Why::BodyTooLarge);
        }
        if !room.grow(data.len()) {
            return Err(Why::NoRoom);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.into())
}

/// Whether what broke a body was its caller, by going away, or what it sent.
fn broken(error: &hyper::Error) -> Why {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => Why::Malformed,
        _ => Why::BodyIncomplete,
    }
}

//! One request: each step either goes on or says why not, and whatever comes of it is one audit line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::audit::AuditRecord;
use super::deliver::delivery::Delivery;
use super::gateway::Gateway;
use super::inbound;
use super::outbound::{self, OutboundMessage};
use super::outcome::Reason;
use super::received::Received;
use super::route::{Direction, InboundRoute, OutboundRoute, Route};
use super::table::ActiveRoute;
use crate::domain::identity::hex;
use crate::edge::front::Permit;
use crate::edge::http::{Caller, Finish, RequestError, Service, body, head};

/// How many seconds a sender should wait while another attempt has the delivery: most targets have answered by then.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// An audit record that is written when it is dropped, also when the caller closes the connection before the answer.
struct PendingRecord {
    gateway: Arc<Gateway>,
    record: AuditRecord,
    began: Instant,
}

impl PendingRecord {
    /// A record of a request that begins now. If it is dropped as it is, the caller has closed the connection.
    fn begin(gateway: Arc<Gateway>, caller: &Caller) -> Self {
        let record = AuditRecord {
            time: Timestamp::now(),
            endpoint: None,
            direction: None,
            outcome: Reason::BodyIncomplete.into(),
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
        Self { gateway, record, began: Instant::now() }
    }

    /// Writes it.
    fn end(mut self, reason: Reason) {
        self.record.outcome = reason.into();
    }
}

impl Drop for PendingRecord {
    fn drop(&mut self) {
        self.record.duration = self.began.elapsed();
        self.gateway.record(&self.record);
    }
}

impl Service for Gateway {
    /// Handles one request, in a span of its own. It costs nothing unless the level is debug.
    async fn call(self: Arc<Self>, caller: Arc<Caller>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let span = tracing::debug_span!(
            "delivery",
            peer = %caller.address,
            endpoint = Empty,
            direction = Empty,
            delivery = Empty
        );
        handle(self, &caller, request, &span).instrument(span.clone()).await
    }

    fn head_refused(self: Arc<Self>, caller: &Caller, error: RequestError) {
        PendingRecord::begin(self, caller).end(error.into());
    }

    fn stop(&self) {
        self.stopping.cancel();
    }

    async fn finished(&self) {
        self.deliveries.close();
        self.deliveries.wait().await;
    }
}

/// Handles one request. An accepted delivery is finished even if its caller closes the connection.
async fn handle(
    gateway: Arc<Gateway>,
    caller: &Caller,
    request: Request<Incoming>,
    span: &Span,
) -> Response<Full<Bytes>> {
    let (parts, mut body) = request.into_parts();
    let mut pending = PendingRecord::begin(gateway.clone(), caller);
    let accepted = match accept(&gateway, caller, &parts, &mut body, &mut pending.record).await {
        Ok(accepted) => accepted,
        Err(reason) => {
            describe(span, &pending.record);
            tracing::debug!(reason = reason.as_str(), "delivery refused");
            pending.end(reason);
            // A caller that asks before it sends a body need not send it.
            if !parts.headers.contains_key(header::EXPECT) {
                body::discard(body).await;
            }
            return answer(reason);
        }
    };
    describe(span, &pending.record);
    // The reason if it panics, which is a defect; the reservation expires by itself.
    pending.record.outcome = Reason::TargetUnreachable.into();
    let deliveries = gateway.deliveries.clone();
    let delivering = async move {
        let reason = accepted.deliver(&gateway, &mut pending.record).await;
        tracing::debug!(reason = reason.as_str(), "delivery finished");
        pending.end(reason);
        reason
    };
    answer(Finish::new(delivering.instrument(span.clone()), &deliveries).await)
}

/// Adds to the span of a request the fields that are known so far.
fn describe(span: &Span, record: &AuditRecord) {
    let fields = [("endpoint", record.endpoint.as_deref()), ("delivery", record.delivery.as_deref())];
    for (field, value) in fields {
        if let Some(value) = value {
            span.record(field, value);
        }
    }
    if let Some(direction) = record.direction {
        span.record("direction", direction);
    }
}

/// The answer says whether to try again, and nothing else.
fn answer(reason: Reason) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = reason.status();
    if reason == Reason::WrongMethod {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    if reason == Reason::InProgress {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// What is to be done with an accepted request.
enum Job {
    Inbound(Arc<InboundRoute>, Delivery),
    Outbound(Arc<OutboundRoute>, OutboundMessage),
}

/// An accepted request. From here on its caller cannot cancel it.
struct Accepted {
    active: Arc<ActiveRoute>,
    job: Job,
    /// The memory of the body; given back when the delivery is over.
    _permit: Permit,
}

async fn accept(
    gateway: &Gateway,
    caller: &Caller,
    parts: &Parts,
    body: &mut Incoming,
    record: &mut AuditRecord,
) -> Result<Accepted, Reason> {
    head::check_authority(parts)?;
    if !gateway.front.audit().admits() {
        return Err(Reason::AuditLogFull);
    }
    // Only the path selects the route; the query is part of what is signed, and of nothing else.
    let active = gateway.routes.load().find(parts.uri.path()).ok_or(Reason::UnknownPath)?;
    let route = &active.route;
    record.endpoint = Some(route.endpoint.clone());
    record.direction = Some(route.direction.as_str());
    record.source = route.source.address(caller, &parts.headers);
    if parts.method != Method::POST {
        return Err(Reason::WrongMethod);
    }
    if !route.source.admits(caller, &parts.headers) {
        return Err(Reason::WrongSource);
    }
    if !active.rate.admits(record.source, Instant::now()) {
        return Err(Reason::TooMany);
    }
    // After the rate limit, which limits the signatures that strangers can make the edge verify.
    if let Some(policy) = &route.caller_token {
        let identity = policy.authenticate(&parts.headers, Timestamp::now())?;
        record.source_identity.get_or_insert(identity);
    }
    check_encoding(&parts.headers, route)?;
    let mut permit = gateway.bodies.permit(record.source);
    let body = body::read(body, route.limits.body, &mut permit).await?;
    let mut body_sha256 = [0; 32];
    body_sha256.copy_from_slice(digest(&SHA256, &body).as_ref());
    record.body_sha256 = Some(hex(&body_sha256));
    let received = Received { parts, endpoint: route.endpoint.clone(), body_sha256, body };
    let job = match &route.direction {
        Direction::Inbound(inbound) => {
            let delivery = inbound::accept(inbound, gateway, &active, &received, record)?;
            Job::Inbound(inbound.clone(), delivery)
        }
        Direction::Outbound(outbound) => {
            let message = outbound::accept(outbound, &active, &received, record)?;
            Job::Outbound(outbound.clone(), message)
        }
    };
    Ok(Accepted { active, job, _permit: permit })
}

impl Accepted {
    async fn deliver(self, gateway: &Gateway, record: &mut AuditRecord) -> Reason {
        let Self { active, job, _permit } = self;
        match job {
            Job::Inbound(route, delivery) => inbound::deliver(&route, gateway, delivery, record).await,
            Job::Outbound(route, message) => outbound::deliver(&route, gateway, &active, message, record).await,
        }
    }
}

/// Refuses an encoded body whose encoding the target would not get to know.
fn check_encoding(headers: &HeaderMap, route: &Route) -> Result<(), Reason> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let encoded = encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded && !route.forward.contains(&header::CONTENT_ENCODING) {
        return Err(Reason::Encoded);
    }
    Ok(())
}

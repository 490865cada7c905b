//! One request: each step either goes on or says why not, and whatever comes of it is one audit line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};
use uuid::Uuid;

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
use crate::edge::front::{Party, Permit, network_of};
use crate::edge::http::{Caller, Finish, RequestError, Service, body, head};
use crate::network::Pieces;

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
            txn: Uuid::now_v7(),
            endpoint: None,
            direction: None,
            outcome: Reason::BodyIncomplete.into(),
            delivery: None,
            key: None,
            source: caller.address,
            source_identity: None,
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
            txn = Empty,
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
    let parts = Arc::new(parts);
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
    span.record("txn", display(record.txn));
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
    parts: &Arc<Parts>,
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
    let proven = route.source.prove(caller, gateway.trust_domain().as_deref(), Timestamp::now());
    record.source_identity = proven.identity().map(ToOwned::to_owned);
    if parts.method != Method::POST {
        return Err(Reason::WrongMethod);
    }
    if !route.source.admits(record.source, &proven) {
        return Err(Reason::WrongSource);
    }
    let party = route.party(record.source);
    // Before everything that costs more than it, for callers without a key too.
    if !active.rate.admits(party.network, Instant::now()) {
        return Err(Reason::TooMany);
    }
    let mut permit = gateway.bodies.permit(party.network, Some(party.namespace.clone()));
    let verified = verify(gateway, &active, parts, body, &party, &mut permit, record).await;
    let (received, checked) = verified.inspect_err(|reason| {
        if *reason != Reason::NoRoom {
            active.rate.failed(party.network, Instant::now());
        }
    })?;
    if !active.rate.admits_verified(party.network, Instant::now()) {
        return Err(Reason::TooMany);
    }
    let job = match checked {
        Checked::Inbound(inbound, checked) => {
            let delivery = inbound::accept(&inbound, gateway, &active, &received, checked, record)?;
            Job::Inbound(inbound, delivery)
        }
        Checked::Outbound(outbound) => {
            let message = outbound::accept(&outbound, &active, &received, record)?;
            Job::Outbound(outbound, message)
        }
    };
    Ok(Accepted { active, job, _permit: permit })
}

/// Reads a request and verifies it: what only callers with a key pass.
async fn verify(
    gateway: &Gateway,
    active: &Arc<ActiveRoute>,
    parts: &Arc<Parts>,
    body: &mut Incoming,
    party: &Party,
    permit: &mut Permit,
    record: &mut AuditRecord,
) -> Result<(Received, Checked), Reason> {
    if let Some(identity) = authenticate(gateway, active, parts, party).await? {
        record.source_identity.get_or_insert(identity);
    }
    check_encoding(&parts.headers, &active.route)?;
    let body = body::read(body, active.route.limits.body, permit).await?;
    let (received, checked) = check(gateway, active.clone(), parts.clone(), body, party.clone()).await;
    record.body_sha256 = Some(hex(&received.body_sha256));
    Ok((received, checked?))
}

/// Verifies the token of the caller, if the webhook asks for one, in turn if it takes long.
async fn authenticate(
    gateway: &Gateway,
    active: &Arc<ActiveRoute>,
    parts: &Arc<Parts>,
    party: &Party,
) -> Result<Option<String>, Reason> {
    let Some(policy) = &active.route.caller_token else { return Ok(None) };
    let (active, parts) = (active.clone(), parts.clone());
    let authenticating = move || {
        let policy = active.route.caller_token.as_ref();
        policy.map(|policy| policy.authenticate(&parts.headers, Timestamp::now())).transpose()
    };
    gateway.turns.run(policy.work(), party.clone(), authenticating).await
}

/// A request whose signature was verified, if its webhook verifies one.
enum Checked {
    Inbound(Arc<InboundRoute>, inbound::Checked),
    Outbound(Arc<OutboundRoute>),
}

/// Joins and hashes the body of a request and verifies it, in turn if it takes long.
async fn check(
    gateway: &Gateway,
    active: Arc<ActiveRoute>,
    parts: Arc<Parts>,
    body: Pieces,
    party: Party,
) -> (Received, Result<Checked, Reason>) {
    let work = active.route.work(body.length());
    let checking = move || {
        let route = &active.route;
        let received = Received::new(parts, route.endpoint.clone(), body.join());
        let checked = match &route.direction {
            Direction::Inbound(inbound) => inbound::check(inbound, &route.webhook, &received)
                .map(|checked| Checked::Inbound(inbound.clone(), checked)),
            Direction::Outbound(outbound) => Ok(Checked::Outbound(outbound.clone())),
        };
        (received, checked)
    };
    gateway.turns.run(work, party, checking).await
}

impl Accepted {
    async fn deliver(self, gateway: &Gateway, record: &mut AuditRecord) -> Reason {
        let Self { active, job, _permit } = self;
        let mut place = gateway.places.permit(network_of(record.source), Some(active.route.namespace.clone()));
        if !place.grow(1) {
            return Reason::TargetBusy;
        }
        match job {
            Job::Inbound(route, delivery) => inbound::deliver(&route, gateway, &active, delivery, record).await,
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

//! One request to the issuer: a document, or a token. Every request for a token is one audit line.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::answer::{self, Answer};
use super::audit::AuditRecord;
use super::calls::{Calls, grant};
use super::issuer::{Document, Grant, Issued, Issuer, paths};
use super::metrics::Metrics;
use super::outcome::Reason;
use super::request::{MAX_REQUEST, TokenRequest};
use crate::contract::report::Report;
use crate::contract::tokens::CallsDocument;
use crate::edge::front::{
    AuditLog, CertificateError, ClientCertificate, Front, LoadedCertificate, ProcessLimits, Quota, Workers, network_of,
};
use crate::edge::http::rate::{RateLimit, Shares};
use crate::edge::http::unassigned::UnassignedLines;
use crate::edge::http::{Caller, Http, RequestError, Service, body, head};
use crate::edge::role::Role;

/// How many tokens are issued per second at most, and how many requests one network may make.
const RATE: (u32, u32) = (20_000, 5_000);
/// How many of these tokens the services of one namespace may ask for.
const NAMESPACE_RATE: u32 = 5_000;

/// What all requests share.
pub struct TokenService {
    front: Arc<Front>,
    /// By host and port.
    issuers: ArcSwap<HashMap<String, Arc<Issuer>>>,
    /// By the name of their Secret.
    by_secret: Mutex<BTreeMap<String, Arc<Issuer>>>,
    listed: watch::Sender<bool>,
    calls: RwLock<Calls>,
    bodies: Arc<Quota>,
    rate: RateLimit,
    shares: Shares,
    unassigned: UnassignedLines,
    /// Counts.
    pub metrics: Metrics,
}

impl TokenService {
    /// A service that issues nothing yet.
    #[must_use]
    pub fn new(metrics: Metrics, workers: Workers, audit: AuditLog) -> Self {
        let limits = ProcessLimits::read();
        Self {
            front: Arc::new(Front::new(limits, audit, metrics.front.clone(), workers)),
            issuers: ArcSwap::default(),
            by_secret: Mutex::default(),
            listed: watch::Sender::new(false),
            calls: RwLock::default(),
            bodies: body::quota(limits),
            rate: RateLimit::new(RATE.0, RATE.1),
            shares: Shares::new(NAMESPACE_RATE),
            unassigned: UnassignedLines::default(),
            metrics,
        }
    }

    /// Puts an issuer in the place of the former one of this Secret; `None` removes it.
    pub fn set_issuer(&self, secret: &str, issuer: Option<Issuer>) {
        let mut by_secret = self.by_secret.lock();
        match issuer {
            Some(issuer) => _ = by_secret.insert(secret.to_owned(), Arc::new(issuer)),
            None => _ = by_secret.remove(secret),
        }
        let by_authority = by_secret.values().map(|issuer| (issuer.authority.clone(), issuer.clone()));
        let issuers: HashMap<_, _> = by_authority.collect();
        self.metrics.issuers(issuers.len());
        self.issuers.store(Arc::new(issuers));
    }

    /// Puts the calls of a namespace in the place of the former ones of this Secret; `None` removes them.
    pub fn set_calls(&self, secret: &str, document: Option<CallsDocument>) {
        self.calls.write().set(secret, document);
    }

    /// Which trust domains this replica issues tokens for, with which keys.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            endpoints: self.by_secret.lock().values().map(|issuer| (issuer.uid.clone(), issuer.report())).collect(),
        }
    }

    /// Waits until all issuers were listed once.
    pub async fn wait_until_listed(&self) {
        // It cannot fail: the sender is part of `self`.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// All issuers were listed.
    pub fn issuers_listed(&self) {
        self.listed.send_replace(true);
    }

    /// Forgets networks that are quiet, and reports what was suppressed.
    pub fn tidy(&self) {
        let now = Instant::now();
        self.rate.forget_idle(now);
        self.shares.forget_idle(now);
        match self.unassigned.take_suppressed(now) {
            0 => {}
            lines => {
                self.metrics.audit_lines_suppressed(lines);
                tracing::warn!(lines, "suppressed audit lines about clients that are not known");
            }
        }
    }

    fn issuer(&self, parts: &Parts) -> Option<Arc<Issuer>> {
        head::check_authority(parts).ok()?;
        self.issuers.load().get(&head::authority(parts).to_ascii_lowercase()).cloned()
    }

    /// Answers a request for a token.
    async fn token(&self, issuer: &Issuer, caller: &Caller, parts: &Parts, body: &mut Incoming) -> Answer {
        let mut record = AuditRecord::begin(caller.address, Some(&issuer.trust_domain));
        let (reason, answer) = match self.issue(issuer, caller, parts, body, &mut record).await {
            Ok(issued) => {
                record.token = Some(issued.id);
                (Reason::Issued, answer::token(&issued, record.subject.is_some()))
            }
            Err(reason) => (reason, answer::refusal(reason)),
        };
        self.record(record, reason);
        answer
    }

    async fn issue(
        &self,
        issuer: &Issuer,
        caller: &Caller,
        parts: &Parts,
        body: &mut Incoming,
        record: &mut AuditRecord,
    ) -> Result<Issued, Reason> {
        let (network, now) = (network_of(caller.address), Instant::now());
        if !self.rate.admits(network, now) {
            return Err(Reason::TooMany);
        }
        if !self.front.audit().admits() {
            return Err(Reason::NotReady);
        }
        let (client, certificate) = login(issuer, caller).ok_or_else(|| {
            self.rate.failed(network, now);
            Reason::InvalidClient
        })?;
        record.client = Some(client.to_owned());
        if !self.rate.admits_verified(network, now) {
            return Err(Reason::TooMany);
        }
        let mut permit = self.bodies.permit(network, None);
        let form = body::read(body, MAX_REQUEST, &mut permit).await?.join();
        let request = TokenRequest::parse(&parts.headers, &form)?;
        record.request = if request.subject_token.is_some() { "TokenExchange" } else { "AccessToken" };
        if request.client_id.as_deref().is_some_and(|claimed| claimed != client) {
            return Err(Reason::InvalidClient);
        }
        let (calls, now) = (self.calls.read().of(&issuer.trust_domain, client), Timestamp::now());
        let calls = calls.ok_or(Reason::UnauthorizedClient)?;
        if !self.shares.admits(namespace(client), Instant::now()) {
            return Err(Reason::TooMany);
        }
        let scopes = grant(&calls, &request)?;
        record.audience = Some(request.audience.clone());
        let subject = request.subject_token.as_ref().map(|token| issuer.subject(token, &calls, now)).transpose()?;
        let (audience, subject) = (&request.audience, subject.as_ref());
        record.subject = subject.map(|subject| subject.id.clone());
        record.tenant = subject.and_then(|subject| subject.tenant.clone());
        let bound_to = calls.certificate_bound.then(|| certificate.thumbprint());
        let not_after = certificate.not_after();
        let grant = Grant { client, audience, scopes: &scopes, subject, not_after, bound_to };
        let issued = issuer.issue(&grant, now).ok_or(Reason::NotReady)?;
        record.scopes = scopes;
        Ok(issued)
    }

    /// Writes an audit line. Of clients that are not known, only so many have one.
    fn record(&self, mut record: AuditRecord, reason: Reason) {
        record.end(reason);
        if record.client.is_some() || self.unassigned.admits(network_of(record.source), Instant::now()) {
            self.front.record(&record, reason != Reason::Issued);
        }
        self.metrics.requested(reason);
    }
}

/// The namespace of a service, by its SPIFFE ID.
fn namespace(spiffe_id: &str) -> &str {
    let (_, rest) = spiffe_id.split_once("/ns/").unwrap_or(("", spiffe_id));
    rest.split_once('/').map_or(rest, |(namespace, _)| namespace)
}

/// The SPIFFE ID of a client that the trust domain vouches for, and its certificate.
fn login<'a>(issuer: &Issuer, caller: &'a Caller) -> Option<(&'a str, &'a ClientCertificate)> {
    let certificate = caller.certificate.as_ref()?;
    let names = certificate.names_by(&issuer.authorities, Timestamp::now())?;
    Some((names.spiffe_id.as_deref()?, certificate))
}

impl Service for TokenService {
    async fn call(self: Arc<Self>, caller: Arc<Caller>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, mut body) = request.into_parts();
        let answer = match (self.issuer(&parts), parts.uri.path()) {
            (None, _) => answer::status(StatusCode::NOT_FOUND),
            (Some(issuer), paths::TOKEN) if parts.method == Method::POST => {
                self.token(&issuer, &caller, &parts, &mut body).await
            }
            (Some(_), paths::TOKEN) => answer::wrong_method("POST"),
            (Some(issuer), path) => match document(&issuer, path) {
                None => answer::status(StatusCode::NOT_FOUND),
                Some(_) if ![Method::GET, Method::HEAD].contains(&parts.method) => answer::wrong_method("GET, HEAD"),
                Some((document, media_type)) => answer::document(document, media_type, &parts.headers),
            },
        };
        body::discard(body).await;
        if parts.method == Method::HEAD { answer::without_content(answer) } else { answer }
    }

    fn head_refused(self: Arc<Self>, caller: &Caller, error: RequestError) {
        self.record(AuditRecord::begin(caller.address, None), error.into());
    }

    fn stop(&self) {}

    async fn finished(&self) {}
}

/// The document at a path, and its media type if it is not plain JSON.
fn document<'a>(issuer: &'a Issuer, path: &str) -> Option<(&'a Document, Option<HeaderValue>)> {
    match path {
        paths::JWKS => Some((&issuer.jwks, Some(answer::JWK_SET))),
        paths::BUNDLE => issuer.bundle.as_ref().map(|bundle| (bundle, None)),
        paths::OPENID_CONFIGURATION | paths::AUTHORIZATION_SERVER => Some((&issuer.metadata, None)),
        _ => None,
    }
}

impl Role for TokenService {
    fn front(&self) -> &Arc<Front> {
        &self.front
    }

    fn use_certificate(&self, loaded: &LoadedCertificate) -> Result<(), CertificateError> {
        self.front.install::<Http<Self>>(loaded)
    }

    fn render_metrics(&self) -> String {
        self.metrics.front.quota_used("connections", self.front.connections_used());
        self.metrics.front.quota_used("bodies", self.bodies.used());
        self.metrics.front.quota_used("audit", self.front.audit().used());
        self.metrics.render()
    }
}

//! What all requests of the webhook gateway share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::assertion::{AssertionClaims, SharedKeys, Signer};
use super::audit::AuditRecord;
use super::deliver::object::Objects;
use super::deliver::service::Post;
use super::deliver::targets::Targets;
use super::metrics::Metrics;
use super::outcome::{Reason, Verdict};
use super::replay::{DeliveryHistory, Redis, max_deliveries};
use super::route::Direction;
use super::routing::RoutingConfig;
use super::table::{ActiveRoute, Routes};
use crate::api::ReplayStore;
use crate::contract::report::{RefusalCause, Report, ServedRoute};
use crate::edge::front::{
    AuditLog, Authorities, CertificateError, Front, LoadedCertificate, ProcessLimits, Quota, Turns, Workers, network_of,
};
use crate::edge::http::unassigned::UnassignedLines;
use crate::edge::http::{Http, body};
use crate::edge::role::Role;

/// What all requests share.
pub struct Gateway {
    /// What stands before it.
    pub front: Arc<Front>,
    /// What is served.
    pub routes: Routes,
    /// Which deliveries were accepted before.
    pub history: DeliveryHistory,
    /// Hands deliveries to their targets.
    pub targets: Targets,
    /// Memory for request bodies.
    pub bodies: Arc<Quota>,
    /// Places for deliveries on the way to their targets.
    pub places: Arc<Quota>,
    /// Which requests that are for no webhook have a line in the audit log.
    pub unassigned: UnassignedLines,
    /// Turns for what would hold a worker for too long.
    pub turns: Arc<Turns>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Accepted deliveries that are on their way.
    pub deliveries: TaskTracker,
    /// Cancelled when the edge stops: no delivery is retried from then on.
    pub stopping: CancellationToken,
    signer: ArcSwapOption<Signer>,
    trust_domain: ArcSwapOption<Authorities>,
}

impl Gateway {
    /// A gateway that serves nothing yet.
    #[must_use]
    pub fn new(
        metrics: Metrics,
        workers: Workers,
        routing: RoutingConfig,
        audit: AuditLog,
        redis: Option<Redis>,
        objects: Objects,
    ) -> Self {
        let (stopping, limits) = (CancellationToken::new(), ProcessLimits::read());
        let turns = Turns::new(workers.count());
        let front = Arc::new(Front::new(limits, audit, metrics.front.clone(), workers));
        Self {
            routes: Routes::new(routing),
            history: DeliveryHistory::new(max_deliveries(limits), redis),
            targets: Targets::new(front.per_worker(Post::default), objects, stopping.clone()),
            front,
            bodies: body::quota(limits),
            places: limits.deliveries(),
            unassigned: UnassignedLines::default(),
            turns,
            metrics: Arc::new(metrics),
            deliveries: TaskTracker::new(),
            stopping,
            signer: ArcSwapOption::empty(),
            trust_domain: ArcSwapOption::empty(),
        }
    }

    /// The authorities that vouch for SPIFFE IDs now; none before there is a certificate.
    #[must_use]
    pub fn trust_domain(&self) -> Option<Arc<Authorities>> {
        self.trust_domain.load_full()
    }

    /// Which routes this replica serves.
    #[must_use]
    pub fn report(&self) -> Report {
        let (table, now) = (self.routes.load(), Timestamp::now());
        let served = |active: &Arc<ActiveRoute>| {
            let used = active.last_used().into_iter().map(|(key, at)| (key.to_owned(), at)).collect();
            let webhook = &active.route.webhook;
            let (generation, route, refuses) =
                (webhook.generation, active.route.digest.clone(), self.refuses(active, now));
            let route = ServedRoute { generation, route, used, refuses, ..ServedRoute::default() };
            (webhook.uid.clone(), route)
        };
        Report { endpoints: table.iter().map(served).collect::<BTreeMap<_, _>>() }
    }

    /// Why this replica refuses deliveries of a webhook, whatever they are.
    fn refuses(&self, active: &ActiveRoute, now: Timestamp) -> Option<RefusalCause> {
        let Direction::Inbound(inbound) = &active.route.direction else { return None };
        if inbound.replay.store == ReplayStore::Redis && self.history.redis_evicts() {
            return Some(RefusalCause::ReplayStoreEvicts);
        }
        active.has_exhausted_its_share(now).then_some(RefusalCause::ReplayShareExhausted)
    }

    /// Signs an assertion for a target, with the edge's certificate or with a key that the target shares.
    ///
    /// # Errors
    /// When there is no certificate, or none of the shared keys is valid.
    pub fn sign_assertion(
        &self,
        shared: Option<&SharedKeys>,
        claims: &AssertionClaims<'_>,
        now: Timestamp,
    ) -> Result<String, Reason> {
        let signer = self.signer.load();
        let signer = signer.as_ref().ok_or(Reason::NotReady)?;
        let signed = match shared {
            None => signer.sign(claims, now),
            Some(keys) => keys.current(now).ok_or(Reason::NotReady)?.sign(&signer.issuer, claims, now),
        };
        signed.ok_or(Reason::NotReady)
    }

    /// Writes a delivery to the audit log, and counts it. Of requests that are for no webhook, only so many have a line.
    pub fn record(&self, record: &AuditRecord) {
        if record.endpoint.is_some() || self.unassigned.admits(network_of(record.source), Instant::now()) {
            self.front.record(record, record.outcome.result == Verdict::Refused);
        }
        self.metrics.delivery(record);
    }
}

impl Role for Gateway {
    fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// It is used for handshakes and for assertions, and its authorities for SPIFFE IDs.
    fn use_certificate(&self, loaded: &LoadedCertificate) -> Result<(), CertificateError> {
        let signer = Signer::new(loaded)?;
        self.front.install::<Http<Self>>(loaded)?;
        self.signer.store(Some(Arc::new(signer)));
        self.trust_domain.store(Some(loaded.authorities.clone()));
        Ok(())
    }

    fn render_metrics(&self) -> String {
        self.metrics.front.quota_used("connections", self.front.connections_used());
        self.metrics.front.quota_used("bodies", self.bodies.used());
        self.metrics.front.quota_used("deliveries", self.places.used());
        self.metrics.front.quota_used("history", self.history.used());
        self.metrics.front.quota_used("audit", self.front.audit().used());
        self.metrics.render()
    }
}

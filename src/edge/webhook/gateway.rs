//! What all requests of the webhook gateway share.

use std::collections::BTreeMap;
use std::sync::Arc;

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
use super::routing::RoutingConfig;
use super::table::{ActiveRoute, Routes};
use crate::contract::report::{Report, ServedRoute};
use crate::edge::front::{AuditLog, CertificateError, Front, LoadedCertificate, ProcessLimits, Quota, Workers};
use crate::edge::http::{Http, body};

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
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Accepted deliveries that are on their way.
    pub deliveries: TaskTracker,
    /// Cancelled when the edge stops: no delivery is retried from then on.
    pub stopping: CancellationToken,
    signer: ArcSwapOption<Signer>,
}

impl Gateway {
    /// A gateway that serves nothing yet.
    #[must_use]
    pub fn new(
        workers: Workers,
        routing: RoutingConfig,
        audit: AuditLog,
        redis: Option<Redis>,
        objects: Objects,
    ) -> Self {
        let (stopping, limits, metrics) = (CancellationToken::new(), ProcessLimits::read(), Metrics::default());
        let front = Arc::new(Front::new(limits, audit, metrics.front.clone(), workers));
        Self {
            routes: Routes::new(routing),
            history: DeliveryHistory::new(max_deliveries(limits), redis),
            targets: Targets::new(front.per_worker(Post::default), objects, stopping.clone()),
            front,
            bodies: body::quota(limits),
            metrics: Arc::new(metrics),
            deliveries: TaskTracker::new(),
            stopping,
            signer: ArcSwapOption::empty(),
        }
    }

    /// Uses a certificate for handshakes and for assertions from now on.
    ///
    /// # Errors
    /// When it cannot be used; the former one stays in use.
    pub fn use_certificate(&self, loaded: &LoadedCertificate) -> Result<(), CertificateError> {
        let signer = Signer::new(loaded)?;
        self.front.install::<Http<Self>>(loaded)?;
        self.signer.store(Some(Arc::new(signer)));
        Ok(())
    }

    /// Which routes this replica serves.
    #[must_use]
    pub fn report(&self) -> Report {
        let table = self.routes.load();
        let served = |active: &Arc<ActiveRoute>| {
            let used = active.last_used().into_iter().map(|(key, at)| (key.to_owned(), at)).collect();
            let webhook = &active.route.webhook;
            let route = ServedRoute { generation: webhook.generation, route: active.route.digest.clone(), used };
            (webhook.uid.clone(), route)
        };
        Report { endpoints: table.iter().map(served).collect::<BTreeMap<_, _>>() }
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

    /// Writes a delivery to the audit log, and counts it.
    pub fn record(&self, record: &AuditRecord) {
        self.front.record(record, record.outcome.result == Verdict::Refused);
        self.metrics.delivery(record);
    }

    /// All metrics, as text.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        self.metrics.front.quota_used("connections", self.front.connections_used());
        self.metrics.front.quota_used("bodies", self.bodies.used());
        self.metrics.front.quota_used("audit", self.front.audit().used());
        self.metrics.render()
    }
}

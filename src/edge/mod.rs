//! The data plane of webhooks: what the edge does with a delivery, from the socket to the target. Configured by what the
//! operator has compiled for it, and by nothing else; nothing on the way of a request asks the API server, unless an object
//! there is its target.
//!
//! ```text
//! accept ──▶ handle: route ─▶ pin ─▶ rate ─▶ body ─▶ verify ─▶ replay ─▶ deliver ──▶ audit
//! ```

mod accept;
mod assertion;
pub mod audit;
mod deliver;
mod framing;
mod handle;
pub mod keys;
mod metrics;
pub mod outcome;
mod rate;
mod replay;
pub mod report;
mod resolve;
mod room;
pub mod route;
pub mod source;
mod table;
mod tls;
pub mod verify;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

pub use accept::serve;
pub use audit::Log;
pub use deliver::object::Objects;
pub use metrics::Metrics;
pub use replay::Redis;
pub use route::Surroundings;

use self::audit::Attempt;
use self::deliver::Targets;
use self::replay::Replays;
use self::report::Report;
use self::room::Room;
use self::route::Route;
use self::table::Routes;
use self::tls::Credentials;

/// Everything that requests share.
pub struct Edge {
    routes: Routes,
    credentials: Credentials,
    replays: Replays,
    targets: Targets,
    room: Room,
    log: Log,
    /// What can be measured.
    pub metrics: Arc<Metrics>,
    /// Deliveries that were accepted and are under way.
    work: TaskTracker,
}

impl Edge {
    /// An edge that serves nothing yet.
    #[must_use]
    pub fn new(surroundings: Surroundings, log: Log, redis: Option<Redis>, objects: Objects) -> Self {
        Self {
            routes: Routes::new(surroundings),
            credentials: Credentials::default(),
            replays: Replays::new(redis),
            targets: Targets::new(objects),
            room: Room::default(),
            log,
            metrics: Arc::default(),
            work: TaskTracker::new(),
        }
    }

    /// What this replica serves.
    fn report(&self) -> Report {
        let table = self.routes.load();
        let served = |served: &Arc<table::Served>| {
            let used = served.used().into_iter().map(|(key, at)| (key.to_owned(), at)).collect();
            let Route { endpoint, digest, .. } = &served.route;
            let told = report::Served { generation: endpoint.generation, route: digest.clone(), used };
            (endpoint.uid.clone(), told)
        };
        Report { endpoints: table.iter().map(served).collect::<BTreeMap<_, _>>() }
    }

    fn record(&self, attempt: &Attempt) {
        let recorded = self.log.write(attempt);
        self.metrics.attempt(attempt, recorded);
    }
}

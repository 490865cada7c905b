//! The data plane of webhooks: what the edge does with a delivery, from the socket to the target, in and out. Configured by
//! what the operator has compiled for it, and by nothing else; nothing on the way of a request asks the API server, unless an
//! object there is its target.
//!
//! ```text
//! accept ──▶ handle: route ─▶ pin ─▶ rate ─▶ token ─▶ body ─┬─▶ inbound: verify ─▶ replay ─▶ deliver ───────┬─▶ audit
//!                                                           └─▶ outbound: sign ─▶ deliver ─▶ dead letter ─┘
//! ```

mod accept;
mod assertion;
pub mod audit;
mod deliver;
pub mod framing;
mod handle;
mod inbound;
pub mod keys;
mod metrics;
mod network;
mod outbound;
pub mod outcome;
mod rate;
mod reach;
mod replay;
pub mod report;
mod room;
pub mod route;
pub mod signing;
pub mod source;
mod table;
mod tls;
pub mod verify;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use accept::serve;
pub use audit::Log;
pub use deliver::object::Objects;
pub use metrics::Metrics;
pub use network::Network;
pub use reach::Reach;
pub use replay::Redis;
pub use route::Surroundings;

use self::assertion::Claims;
use self::audit::Attempt;
use self::deliver::Targets;
use self::outcome::Why;
use self::replay::Replays;
use self::room::Room;
use self::route::Route;
use self::table::Routes;
use self::tls::Credentials;
use crate::contract::report::{Report, ServedRoute};

/// How long a stop takes at most, once it was asked for.
pub const STOP: Duration = report::WITHDRAWAL.saturating_add(accept::FAREWELL);

/// Everything that requests share.
pub struct Edge {
    routes: Routes,
    credentials: Credentials,
    replays: Replays,
    targets: Targets,
    room: Room,
    log: Log,
    metrics: Arc<Metrics>,
    /// Deliveries that were accepted and are under way.
    work: TaskTracker,
    /// Nothing is tried again from here on.
    stopping: CancellationToken,
}

impl Edge {
    /// An edge that serves nothing yet.
    #[must_use]
    pub fn new(surroundings: Surroundings, log: Log, redis: Option<Redis>, objects: Objects) -> Self {
        let (stopping, room) = (CancellationToken::new(), Room::default());
        Self {
            routes: Routes::new(surroundings),
            credentials: Credentials::default(),
            replays: Replays::new(room.deliveries, redis),
            targets: Targets::new(objects, stopping.clone()),
            room,
            log,
            metrics: Arc::default(),
            work: TaskTracker::new(),
            stopping,
        }
    }

    /// What this replica serves.
    fn report(&self) -> Report {
        let table = self.routes.load();
        let served = |served: &Arc<table::Served>| {
            let used = served.used().into_iter().map(|(key, at)| (key.to_owned(), at)).collect();
            let Route { endpoint, digest, .. } = &served.route;
            let told = ServedRoute { generation: endpoint.generation, route: digest.clone(), used };
            (endpoint.uid.clone(), told)
        };
        Report { endpoints: table.iter().map(served).collect::<BTreeMap<_, _>>() }
    }

    /// Signs what a target is told.
    fn sign_assertion(&self, claims: &Claims<'_>) -> Result<String, Why> {
        let signer = self.credentials.signer.load_full().ok_or(Why::NotReady)?;
        signer.sign(claims, Timestamp::now()).ok_or(Why::NotReady)
    }

    /// What can be measured, as text.
    #[must_use]
    pub fn measured(&self) -> String {
        self.metrics.room(self.room.taken());
        self.metrics.render()
    }

    fn record(&self, attempt: &Attempt) {
        let recorded = self.log.write(attempt);
        self.metrics.attempt(attempt, recorded);
    }
}

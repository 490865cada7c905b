//! The brokers with a session, by the name of their `BrokerConnection`.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::kafka::ClientAccess;
use super::session::Session;
use super::state::SessionMode;
use crate::domain::address_policy::AddressPolicy;

/// A broker with a session.
pub struct Broker {
    /// Addresses and authorities that a client needs besides its own certificate.
    pub access: ClientAccess,
    /// Which addresses it may have.
    pub addresses: AddressPolicy,
    /// The session with the broker.
    pub session: Session,
    /// How the session works.
    pub mode: SessionMode,
    /// Digest of the configuration of the session. When it changes, a new session replaces this one.
    pub source: String,
    /// Limits how many logins with the credentials of clients run at the same time.
    pub logins: Arc<Semaphore>,
    /// How much of the drift of the session was reported already.
    pub reported: ReportedDrift,
}

impl Broker {
    /// Whether the connection is in mode `Observe`: nothing is changed on the broker.
    #[must_use]
    pub fn observes(&self) -> bool {
        !self.mode.enforce
    }
}

/// Numbers of bindings that the broker had lost since its session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// How many bindings were found missing.
    pub found: u64,
    /// How many of them were created again.
    pub repaired: u64,
}

/// How much drift of a session was reported already.
#[derive(Debug, Default)]
pub struct ReportedDrift(Mutex<Drift>);

impl ReportedDrift {
    /// Remembers the totals of a session, and returns by how much they exceed the totals that were reported before.
    pub fn take_unreported(&self, total: Drift) -> Drift {
        let reported = std::mem::replace(&mut *self.0.lock(), total);
        Drift {
            found: total.found.saturating_sub(reported.found),
            repaired: total.repaired.saturating_sub(reported.repaired),
        }
    }
}

/// All brokers with a session.
#[derive(Default)]
pub struct Brokers(RwLock<HashMap<String, Arc<Broker>>>);

impl Brokers {
    /// The broker of a connection.
    pub fn get(&self, name: &str) -> Option<Arc<Broker>> {
        self.0.read().get(name).cloned()
    }

    /// Adds or replaces the broker of a connection.
    pub fn set(&self, name: &str, broker: Broker) -> Arc<Broker> {
        let broker = Arc::new(broker);
        self.0.write().insert(name.to_owned(), broker.clone());
        broker
    }

    /// Removes the broker of a connection, and returns whether there was one. Its session ends when nothing uses it any more.
    pub fn remove(&self, name: &str) -> bool {
        self.0.write().remove(name).is_some()
    }
}

//! The brokers that are connected, by the name of their connection.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::kafka::ClientAccess;
use super::session::Session;

/// A connected broker.
pub struct Broker {
    /// What a client needs to connect besides its own certificate.
    pub access: ClientAccess,
    /// The session.
    pub session: Session,
    /// Whether nothing may be changed there.
    pub observes: bool,
    /// Digest of the configuration that the session was started with; it is replaced when this changes.
    pub source: String,
    /// Permits for logins with the credentials of clients.
    pub logins: Arc<Semaphore>,
    /// How much of its drift was reported already.
    pub reported: ReportedDrift,
}

/// Bindings that a broker had lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// How many were found missing.
    pub found: u64,
    /// How many of them were put back.
    pub repaired: u64,
}

/// How much drift of a session was reported already.
#[derive(Debug, Default)]
pub struct ReportedDrift(Mutex<Drift>);

impl ReportedDrift {
    /// Takes over the totals of a session, and returns how much of them was not reported before.
    pub fn news(&self, total: Drift) -> Drift {
        let reported = std::mem::replace(&mut *self.0.lock(), total);
        Drift {
            found: total.found.saturating_sub(reported.found),
            repaired: total.repaired.saturating_sub(reported.repaired),
        }
    }
}

/// All brokers.
#[derive(Default)]
pub struct Brokers(RwLock<HashMap<String, Arc<Broker>>>);

impl Brokers {
    /// A broker by name.
    pub fn get(&self, name: &str) -> Option<Arc<Broker>> {
        self.0.read().get(name).cloned()
    }

    /// Adds or replaces a broker.
    pub fn set(&self, name: &str, broker: Broker) -> Arc<Broker> {
        let broker = Arc::new(broker);
        self.0.write().insert(name.to_owned(), broker.clone());
        broker
    }

    /// Removes a broker; its session ends with the last use of it. Says whether it was there.
    pub fn remove(&self, name: &str) -> bool {
        self.0.write().remove(name).is_some()
    }
}

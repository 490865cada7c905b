//! The brokers that are connected, by the name of their connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Semaphore;

use super::kafka::ClientAccess;
use super::session::Session;

/// A broker as other controllers see it.
pub struct Broker {
    /// What a client needs besides its own certificate.
    pub access: ClientAccess,
    /// The session.
    pub session: Session,
    /// Whether nothing may be changed there.
    pub observes: bool,
    /// What the session was started from; it is replaced when this changes.
    pub source: String,
    /// Turns for logins with the credentials of clients.
    pub logins: Arc<Semaphore>,
    /// How much of its drift was told of.
    pub told: Told,
}

/// How much drift of a session was told of already: bindings found missing, and put back.
#[derive(Debug, Default)]
pub struct Told(Mutex<(u64, u64)>);

impl Told {
    /// Takes over the totals of a session, and says what of them is news.
    pub fn news(&self, found: u64, repaired: u64) -> (u64, u64) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let news = (found.saturating_sub(told.0), repaired.saturating_sub(told.1));
        *told = (found, repaired);
        news
    }
}

/// All brokers.
#[derive(Default)]
pub struct Brokers(RwLock<HashMap<String, Arc<Broker>>>);

impl Brokers {
    /// A broker by name.
    pub fn get(&self, name: &str) -> Option<Arc<Broker>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Adds or replaces a broker.
    pub fn set(&self, name: &str, broker: Broker) -> Arc<Broker> {
        let broker = Arc::new(broker);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), broker.clone());
        broker
    }

    /// Removes a broker; its session ends with the last use of it. Says whether it was there.
    pub fn remove(&self, name: &str) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}

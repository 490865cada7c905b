//! The brokers that are connected, by the name of their connection.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::kafka::ClientAccess;
use super::session::Session;

/// A broker as other controllers see it.
#[derive(Clone)]
pub struct Broker {
    /// What a client needs besides its own certificate.
    pub access: ClientAccess,
    /// The session.
    pub session: Session,
    /// Whether nothing may be changed there.
    pub observes: bool,
    /// What the session was started from; it is replaced when this changes.
    pub source: String,
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

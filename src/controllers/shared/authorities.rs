//! The signing authorities of all trust domains, in memory.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::issuers::authority::SigningAuthority;

/// An authority that signs.
pub struct ActiveAuthority {
    /// The authority.
    pub signer: SigningAuthority,
    /// What it was loaded from; it is loaded again when this changes.
    pub source: String,
}

/// The authorities, by the name of their `TrustDomain`.
#[derive(Default)]
pub struct Authorities(RwLock<HashMap<String, Arc<ActiveAuthority>>>);

impl Authorities {
    /// The authority of a trust domain.
    pub fn get(&self, trust_domain: &str) -> Option<Arc<ActiveAuthority>> {
        self.0.read().get(trust_domain).cloned()
    }

    /// Replaces the authority of a trust domain.
    pub fn set(&self, trust_domain: &str, authority: ActiveAuthority) -> Arc<ActiveAuthority> {
        let authority = Arc::new(authority);
        self.0.write().insert(trust_domain.to_owned(), authority.clone());
        authority
    }

    /// Stops signing with the authority of a trust domain.
    pub fn remove(&self, trust_domain: &str) {
        self.0.write().remove(trust_domain);
    }
}

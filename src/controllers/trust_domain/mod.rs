//! `TrustDomain`: its authority, and the trust bundle in every selected namespace.

mod apply;
mod authority;
mod bundle;
mod controller;
mod describe;
mod observe;
mod plan;
mod subject_issuers;
mod tokens;

use std::sync::Arc;

pub use controller::Controller;

use super::shared::claims::NameClaim;
use super::shared::kind::{self, IndexKey, ManagedKind, SpecFacts, alone};
use super::shared::signal::Signal;
use crate::api::TrustDomain;
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::{Change, Store};
use crate::stalls::elsewhere;

impl ManagedKind for TrustDomain {
    const STARTS_FIRST: bool = true;

    /// Reading and writing for one trust domain delays no other.
    fn lane(_: &Store<Self>, name: &Name) -> Lane {
        alone(name)
    }

    fn index_keys(&self) -> Vec<IndexKey> {
        let brought = self.spec.issuer.ca.as_ref().map(|ca| &ca.secret_ref);
        let of_providers = self.spec.subject_issuers.iter().filter_map(|issuer| issuer.keys.secret_ref.as_ref());
        let secrets = brought.into_iter().chain(of_providers).map(|secret| secret.name.as_str().into());
        let own = self.metadata.uid.as_deref().map(|uid| IndexKey::Uid(uid.into()));
        secrets.map(IndexKey::OperatorSecret).chain(own).chain(IndexKey::terminating(self)).collect()
    }

    fn claims(&self) -> Vec<NameClaim> {
        std::iter::once(observe::domain_claim(self)).chain(observe::issuer_claim(self)).collect()
    }

    fn signals(change: &Change<Self>) -> Vec<Signal> {
        let changed = change.differs(SpecFacts::of);
        changed.then(|| Signal::TrustDomainChanged(change.name.name.clone())).into_iter().collect()
    }
}

impl kind::Controller for Controller {
    type Kind = TrustDomain;

    async fn reconcile(&self, domain: Arc<TrustDomain>) -> Result<Done, Error> {
        // It looks at every namespace.
        let controller = self.clone();
        let observed = elsewhere(move || observe::observe(&controller, domain)).await;
        let plan = plan::plan(&observed);
        apply::apply(self, &observed, plan).await
    }

    fn remember(&self, change: &Change<TrustDomain>) {
        if change.after.is_none() {
            self.authorities.remove(&change.name.name);
        }
    }
}

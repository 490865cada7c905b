//! `ServiceIdentity`: its certificates, and its accounts at brokers.

mod accounts;
mod apply;
mod calls;
mod controller;
mod credential;
mod credentials;
mod gauges;
mod login;
mod observe;
mod plan;

use std::sync::Arc;

use jiff::Timestamp;

pub use controller::Controller;

use super::shared::claims::NameClaim;
use super::shared::kind::{self, IndexKey, ManagedKind, SpecFacts};
use super::shared::signal::Signal;
use crate::api::{BrokerConnection, Kind, ServiceIdentity, TrustDomain};
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::{Change, Store};
use crate::kubernetes::uid;
use crate::metrics::Metrics;

impl ManagedKind for ServiceIdentity {
    /// The brokers of its accounts may delay an identity.
    fn lane(store: &Store<Self>, name: &Name) -> Lane {
        let brokers = store.get(Some(&name.namespace), &name.name).map(|identity| identity.spec.brokers);
        let names = brokers.iter().flatten().map(|broker| broker.name.as_str());
        Lane { group: names.collect::<Vec<_>>().join(","), turn: name.namespace.to_string() }
    }

    fn index_keys(&self) -> Vec<IndexKey> {
        let domain = IndexKey::cluster::<TrustDomain>(&self.spec.trust_domain);
        let own = self.metadata.namespace.as_deref().unwrap_or_default();
        let peers = calls::peers(self, own).into_iter().map(IndexKey::object::<Self>);
        let brokers = self.spec.brokers.iter().map(|broker| IndexKey::cluster::<BrokerConnection>(&broker.name));
        std::iter::once(domain).chain(brokers).chain(peers).collect()
    }

    fn claims(&self) -> Vec<NameClaim> {
        let names = observe::dns_claims(self).map(|(_, claim)| claim);
        std::iter::once(observe::account_claim(self)).chain(names).collect()
    }

    fn signals(change: &Change<Self>) -> Vec<Signal> {
        let mut signals = Vec::new();
        if change.differs(|identity| (SpecFacts::of(identity), credentials_of(identity))) {
            signals.push(Signal::AccountsChanged(change.name.clone()));
        }
        if change.differs(|identity| (SpecFacts::of(identity), &identity.metadata.labels, acceptance_of(identity))) {
            signals.push(Signal::IdentityChanged(change.name.clone()));
        }
        let remains = change.after.as_ref().is_some_and(|identity| identity.metadata.deletion_timestamp.is_none());
        if !remains {
            signals.push(Signal::IdentityDeleted);
        }
        signals
    }
}

/// The fingerprints of the broker credentials.
fn credentials_of(identity: &ServiceIdentity) -> Vec<Option<&str>> {
    let accounts = identity.status.iter().flat_map(|status| &status.brokers);
    accounts.map(|account| account.certificate.as_ref().map(|it| it.fingerprint.as_str())).collect()
}

/// What the `Accepted` condition says: a policy repeats it when it refuses a grant.
fn acceptance_of(identity: &ServiceIdentity) -> Option<&str> {
    let accepted = identity.conditions().iter().find(|condition| condition.type_ == "Accepted");
    accepted.map(|condition| condition.message.as_str())
}

impl kind::Controller for Controller {
    type Kind = ServiceIdentity;

    async fn reconcile(&self, identity: Arc<ServiceIdentity>) -> Result<Done, Error> {
        // A deleted identity takes its Secrets with it, and the policies that grant it rights revoke these. In a namespace
        // that is being deleted nothing can be created any more.
        let is_deleted = identity.metadata.deletion_timestamp.is_some();
        if is_deleted || self.namespaces.is_terminating(identity.metadata.namespace.as_deref()) {
            calls::withdraw(self, &Name::of(&*identity)).await?;
            return Ok(Done::gone());
        }
        let mut observed = observe::observe(self, identity)?;
        let refused = plan::joins(&observed).err().map(|refusal| refusal.reason);
        observe::take_names(self, &mut observed, refused);
        for other in &observed.released {
            self.signals.emit(Signal::ClaimsChanged(other.clone()));
        }
        let plan = plan::plan(&observed);
        apply::apply(self, &observed, plan).await
    }

    fn remember(&self, change: &Change<ServiceIdentity>) {
        if change.after.is_none() {
            self.token_calls.forget(&change.name);
        }
        // The place of a deleted identity in a rotation is free.
        if let Some(gone) = &change.before
            && change.after.as_ref().map(uid) != Some(uid(gone))
        {
            self.gate.leave(&uid(gone));
        }
    }

    fn count(&self, metrics: &Metrics, now: Timestamp) {
        metrics.certificates(gauges::certificates(self, now));
    }
}

//! `BrokerConnection`: the session with a broker, and reports on it.

mod apply;
mod controller;
mod observe;
mod plan;
mod records;
mod session;

use std::sync::Arc;

pub use controller::Controller;

use super::shared::kind::{self, IndexKey, ManagedKind, SpecFacts, alone};
use super::shared::signal::Signal;
use crate::api::BrokerConnection;
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::{Change, Store};
use crate::metrics::{BrokerFigures, Metrics};

impl ManagedKind for BrokerConnection {
    const STARTS_FIRST: bool = true;

    /// A broker that hangs delays no other.
    fn lane(_: &Store<Self>, name: &Name) -> Lane {
        alone(name)
    }

    fn index_keys(&self) -> Vec<IndexKey> {
        let admin = IndexKey::OperatorSecret(self.spec.kafka.admin_secret_ref.name.as_str().into());
        std::iter::once(admin).chain(IndexKey::terminating(self)).collect()
    }

    fn signals(change: &Change<Self>) -> Vec<Signal> {
        let changed = change.differs(SpecFacts::of);
        changed.then(|| Signal::BrokerChanged(change.name.name.clone())).into_iter().collect()
    }
}

impl kind::Controller for Controller {
    type Kind = BrokerConnection;

    async fn reconcile(&self, connection: Arc<BrokerConnection>) -> Result<Done, Error> {
        let observed = observe::observe(self, connection).await?;
        let plan = plan::plan(&observed);
        apply::apply(self, &observed, plan).await
    }

    fn remember(&self, change: &Change<BrokerConnection>) {
        if change.after.is_none() {
            self.brokers.remove(&change.name.name);
        }
    }

    fn measure(&self, metrics: &Metrics) {
        let names = self.handle.store().names(None).into_iter().map(|name| name.name.to_string());
        metrics.brokers(names.map(|name| {
            let broker = self.brokers.get(&name);
            let state = broker.map(|broker| broker.session.state().borrow().clone());
            let figures = state.map_or_else(BrokerFigures::default, |state| BrokerFigures {
                up: state.is_up(),
                applied: state.applied,
                missing: state.missing.count,
                unmanaged: state.unmanaged.count,
            });
            (name, figures)
        }));
    }
}

//! `RotationPolicy`: checks it, and reports its progress. The controllers of its targets carry it out.

mod apply;
mod controller;
mod observe;
mod plan;

use std::sync::Arc;
use std::time::Duration;

pub use controller::Controller;

use super::shared::kind::{self, IndexKey, ManagedKind, SpecFacts, by_namespace};
use super::shared::signal::Signal;
use crate::api::RotationPolicy;
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::{Change, Store};
use crate::stalls::elsewhere;

impl ManagedKind for RotationPolicy {
    /// A report counts every target of the policy.
    const DEBOUNCE: Duration = Duration::from_millis(500);

    fn lane(_: &Store<Self>, name: &Name) -> Lane {
        by_namespace(name)
    }

    /// A rotation policy selects its targets; it refers to nothing.
    fn index_keys(&self) -> Vec<IndexKey> {
        Vec::new()
    }

    fn signals(change: &Change<Self>) -> Vec<Signal> {
        let changed = change.differs(SpecFacts::of);
        changed.then(|| Signal::RotationPolicyChanged(change.name.clone())).into_iter().collect()
    }
}

impl kind::Controller for Controller {
    type Kind = RotationPolicy;

    async fn reconcile(&self, policy: Arc<RotationPolicy>) -> Result<Done, Error> {
        if policy.metadata.deletion_timestamp.is_some() {
            return Ok(Done::gone());
        }
        // It looks at every object that the policy may govern.
        let controller = self.clone();
        let observed = elsewhere(move || observe::observe(&controller, policy)).await;
        let plan = plan::plan(&observed);
        apply::apply(self, &observed, plan).await
    }
}

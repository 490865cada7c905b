//! `TopicPolicy`: who may publish and consume, as ACLs on the broker.

mod apply;
mod cleanup;
mod controller;
mod describe;
mod observe;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use controller::Controller;

use super::shared::kind::{self, IndexKey, ManagedKind};
use super::shared::signal::Signal;
use crate::api::{BrokerConnection, Grant, ServiceIdentity, TopicPolicy};
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::{Change, Store};

impl ManagedKind for TopicPolicy {
    /// Policies that wait for one broker together are applied in one batch.
    const WORKERS: usize = 256;

    /// Its broker may delay a policy.
    fn lane(store: &Store<Self>, name: &Name) -> Lane {
        let broker = store.get(Some(&name.namespace), &name.name).map(|policy| policy.spec.broker);
        Lane { group: broker.unwrap_or_default(), turn: name.namespace.to_string() }
    }

    fn index_keys(&self) -> Vec<IndexKey> {
        let own = self.metadata.namespace.as_deref().unwrap_or_default();
        let broker = IndexKey::cluster::<BrokerConnection>(&self.spec.broker);
        let namespace_of = |grant: &'_ Grant| grant.identity.namespace.clone().unwrap_or_else(|| own.to_owned());
        let identities = self.spec.grants.iter().map(|grant| {
            IndexKey::object::<ServiceIdentity>(Name::new(Some(&namespace_of(grant)), &grant.identity.name))
        });
        // What an identity may be granted depends on its namespace as well.
        let namespaces: BTreeSet<String> = self.spec.grants.iter().map(namespace_of).chain([own.to_owned()]).collect();
        let namespaces = namespaces.into_iter().map(|namespace| IndexKey::Namespace(namespace.into()));
        let uid = self.metadata.uid.as_deref().map(|uid| IndexKey::Uid(uid.into()));
        std::iter::once(broker).chain(identities).chain(namespaces).chain(uid).collect()
    }

    fn signals(change: &Change<Self>) -> Vec<Signal> {
        change.after.is_none().then_some(Signal::TopicPolicyDeleted).into_iter().collect()
    }
}

impl kind::Controller for Controller {
    type Kind = TopicPolicy;

    async fn reconcile(&self, policy: Arc<TopicPolicy>) -> Result<Done, Error> {
        let (plan, current) = {
            let observed = observe::observe(self, &policy).await?;
            if policy.metadata.deletion_timestamp.is_some() {
                return cleanup::clean_up(self, &observed).await;
            }
            (plan::plan(&observed), observed.current)
        };
        if self.namespaces.is_terminating(policy.metadata.namespace.as_deref()) {
            // It is deleted next, and its rights are revoked then; until then everything that it refers to is deleted
            // piece by piece.
            return Ok(Done::gone());
        }
        apply::apply(self, &policy, &current, plan).await
    }
}

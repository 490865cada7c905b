//! `WebhookEndpoint` and `WebhookDestination`, handled in the same way. The edge gets what it needs of a webhook as a
//! Secret in its own namespace, so that it needs no rights in any other.

mod account;
mod apply;
mod controller;
mod describe;
mod external;
mod keys;
mod observe;
mod plan;
mod program;
mod service;
mod settle;
mod share;
mod stored_key;
pub(super) mod sweep;

use std::sync::Arc;

pub use controller::Controller;

use super::shared::claims::NameClaim;
use super::shared::kind::{self, IndexKey, ManagedKind, SpecFacts, by_namespace};
use super::shared::signal::Signal;
use super::shared::webhook::{KeySource, Webhook};
use crate::api::{BrokerConnection, ServiceIdentity};
use crate::domain::name::Name;
use crate::kubernetes::error::Error;
use crate::kubernetes::queue::Lane;
use crate::kubernetes::run::Done;
use crate::kubernetes::store::{Change, Store};

impl<W: Webhook> ManagedKind for W {
    fn lane(_: &Store<Self>, name: &Name) -> Lane {
        by_namespace(name)
    }

    fn index_keys(&self) -> Vec<IndexKey> {
        let own = |name: &str| Name::new(self.meta().namespace.as_deref(), name);
        let keys = match self.key_source() {
            KeySource::External(secret) => Some(secret),
            KeySource::Generated(_) => None,
        };
        let secrets = [keys, self.source_secret(), self.assertion_secret()]
            .into_iter()
            .flatten()
            .map(|name| IndexKey::Secret(own(name)));
        let identity = self.kafka().map(|it| IndexKey::object::<ServiceIdentity>(own(&it.service_identity)));
        let service = self.service().map(|it| IndexKey::Service(own(&it.name)));
        let broker = self.kafka().map(|it| IndexKey::cluster::<BrokerConnection>(&it.broker));
        let uid = self.meta().uid.as_deref().map(|uid| IndexKey::Uid(uid.into()));
        secrets.chain(service).chain(identity).chain(broker).chain(uid).collect()
    }

    fn claims(&self) -> Vec<NameClaim> {
        vec![observe::path_claim(self)]
    }

    fn signals(change: &Change<Self>) -> Vec<Signal> {
        let changed = change.differs(|webhook| (SpecFacts::of(webhook), webhook.meta().labels.as_ref()));
        changed.then(|| Signal::WebhookChanged(change.name.clone())).into_iter().collect()
    }
}

impl<W: Webhook> kind::Controller for Controller<W> {
    type Kind = W;

    async fn reconcile(&self, webhook: Arc<W>) -> Result<Done, Error> {
        if webhook.meta().deletion_timestamp.is_some() {
            return apply::clean_up(self, &*webhook).await;
        }
        if self.namespaces.is_terminating(webhook.meta().namespace.as_deref()) {
            return Ok(Done::gone());
        }
        let observed = observe::observe(self, webhook);
        let plan = plan::plan(&observed);
        apply::apply(self, &observed, plan).await
    }

    fn remember(&self, change: &Change<W>) {
        if change.after.is_none() {
            self.sweep.notify();
        }
    }
}

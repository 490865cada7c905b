//! Which change wakes which webhooks. Every handler runs after the store has seen the change.

use super::super::claims::claimant;
use super::super::context::Context;
use super::super::edges::Concerned;
use super::super::wiring::{fire_all, readable, spec_facts};
use super::{KeySource, Webhook};
use crate::api::{WebhookDestination, WebhookEndpoint};
use crate::domain::name::Name;

/// What a webhook depends on, whatever its kind.
struct Needs<'a> {
    uid: Option<&'a str>,
    key_secret: Option<&'a str>,
    source_secret: Option<&'a str>,
    identity: Option<&'a str>,
}

impl<'a> Needs<'a> {
    fn of<W: Webhook>(webhook: &'a W) -> Self {
        Self {
            uid: webhook.meta().uid.as_deref(),
            key_secret: match webhook.key_source() {
                KeySource::External(secret) => Some(secret),
                KeySource::Generated(_) => None,
            },
            source_secret: webhook.source_secret(),
            identity: webhook.kafka().map(|target| target.service_identity.as_str()),
        }
    }
}

impl Context {
    /// A webhook was added, changed or removed.
    pub fn webhook_changed<W: Webhook>(&self, changed: &Name) {
        W::trigger(&self.triggers).fire(changed);
        let found = readable(W::store(&self.stores), changed);
        if found.is_none() {
            self.gone_webhooks.tell();
        }
        let facts = found.as_ref().map(|webhook| format!("{}/{:?}", spec_facts(webhook), webhook.meta().labels));
        if self.seen.webhooks.changed(&claimant::<W>(changed), facts) {
            self.rotation_policies_of(&changed.namespace);
        }
        for other in self.claims.webhook_changed(changed, found.as_ref()) {
            self.owned_changed(&other.namespace, &other.name);
        }
    }

    /// A Secret whose owner gives it to webhooks was added, changed or removed.
    pub fn key_secret_changed(&self, changed: &Name) {
        let secret = Some(&*changed.name);
        self.wake_webhooks(Some(&changed.namespace), |it| it.key_secret == secret || it.source_secret == secret);
    }

    /// The broker accounts of an identity have changed.
    pub fn accounts_changed(&self, identity: &Name) {
        self.wake_webhooks(Some(&identity.namespace), |it| it.identity == Some(&*identity.name));
    }

    /// A replica of the edge reports anew.
    pub fn edge_reported(&self, concerned: &Concerned) {
        match concerned {
            Concerned::Everybody => self.webhooks_of(None),
            Concerned::These(uids) if uids.is_empty() => {}
            Concerned::These(uids) => self.wake_webhooks(None, |it| it.uid.is_some_and(|uid| uids.contains(uid))),
        }
    }

    /// Something that was written for a webhook was changed or removed. A route lives in the edge's namespace, and names
    /// the webhook's.
    pub fn written_for_webhook(&self, namespace: &str, kind: &str, name: &str) {
        let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
        let name = Name::new(Some(namespace), name);
        match kind {
            "WebhookEndpoint" => self.triggers.webhook_endpoints.fire(&name),
            "WebhookDestination" => self.triggers.webhook_destinations.fire(&name),
            _ => {}
        }
    }

    /// Wakes all webhooks, or those of a namespace.
    pub fn webhooks_of(&self, namespace: Option<&str>) {
        fire_all(&self.triggers.webhook_endpoints, self.stores.webhook_endpoints.names(namespace));
        fire_all(&self.triggers.webhook_destinations, self.stores.webhook_destinations.names(namespace));
    }

    /// Wakes those that are meant, of all or of a namespace.
    fn wake_webhooks(&self, namespace: Option<&str>, meant: impl Fn(&Needs<'_>) -> bool) {
        self.wake_kind::<WebhookEndpoint>(namespace, &meant);
        self.wake_kind::<WebhookDestination>(namespace, &meant);
    }

    fn wake_kind<W: Webhook>(&self, namespace: Option<&str>, meant: &impl Fn(&Needs<'_>) -> bool) {
        let found = W::store(&self.stores).iter(namespace);
        let found = found.filter(|(_, webhook)| webhook.as_ref().is_ok_and(|webhook| meant(&Needs::of(webhook))));
        found.for_each(|(name, _)| W::trigger(&self.triggers).fire(&name));
    }
}

//! Looks up what a webhook depends on. Reads stores only; nothing is decided and nothing written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::account::{self, Account};
use super::controller::Controller;
use super::service::{self, Reached};
use crate::api::{Kind, WebhookStatus};
use crate::contract::report::ServedRoute;
use crate::controllers::shared::claims::{NameClaim, Scope};
use crate::controllers::shared::webhook::{Webhook, key_secret};
use crate::domain::altered::AlteredBy;
use crate::domain::in_effect::in_effect;
use crate::domain::key_set::{KeyRecord, KeyRotation};
use crate::domain::name::ObjectRef;
use crate::domain::refusal::Refusal;
use crate::kubernetes::uid;

/// Maximum number of webhooks of a namespace at the edge, of both kinds: every replica holds all of them in memory.
const MAX_WEBHOOKS: usize = 1000;

/// Everything that the plan depends on.
pub struct Observed<W> {
    pub webhook: Arc<W>,
    /// Its status as it was written last.
    pub status: WebhookStatus,
    /// Another webhook that holds the path.
    pub path_holder: Option<ObjectRef>,
    /// Whether the path begins with the namespace.
    pub owns_path: bool,
    /// How many webhooks the namespace has at the edge, if that leaves no place for this one.
    pub full_with: Option<usize>,
    /// Whether there is an edge to serve it.
    pub has_edge: bool,
    /// The generated keys, or the field manager that changed them.
    pub generated: Option<Result<Vec<KeyRecord>, AlteredBy>>,
    /// Whether somebody else has changed or deleted them.
    pub keys_lost: bool,
    /// The broker account that it needs, or why there is none.
    pub account: Option<Result<Account, Refusal>>,
    /// How the Service that it delivers to is reached, if it delivers to one.
    pub service: Option<Reached>,
    /// Digest of the route as it was written.
    pub route: Option<String>,
    /// Length of this route, in bytes.
    pub route_size: usize,
    /// How many bytes the routes of the namespace have together.
    pub share: usize,
    /// How every replica of the edge serves it.
    pub served: BTreeMap<String, Option<ServedRoute>>,
    pub rotation: KeyRotation,
    pub now: Timestamp,
}

impl<W: Kind> Observed<W> {
    /// Namespace of the webhook.
    pub fn namespace(&self) -> &str {
        self.webhook.meta().namespace.as_deref().unwrap_or_default()
    }
}

/// Name of the Secret with the route, in the edge's namespace: never another webhook's.
pub fn route_secret<W: Webhook>(webhook: &W) -> String {
    format!("route-{}", uid(webhook))
}

/// The claim of a webhook on its path.
pub fn path_claim<W: Webhook>(webhook: &W) -> NameClaim {
    NameClaim::new(Scope::Path, &[webhook.path()])
}

/// Looks everything up, and takes the path if the webhook may hold it.
pub fn observe<W: Webhook>(controller: &Controller<W>, webhook: Arc<W>) -> Observed<W> {
    let metadata = webhook.meta();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let policies = controller.rotation.policies_for(&namespace);
    let key_secret = key_secret(&*webhook);
    let generated = controller.secrets.get(&namespace, &key_secret);
    let edge = controller.settings.edge_namespace.as_deref();
    let route = edge.and_then(|edge| controller.secrets.get(edge, &route_secret(&*webhook)));
    let (path, claims) = (webhook.path(), [path_claim(&*webhook)]);
    let below = path.strip_prefix('/').and_then(|path| path.strip_prefix(namespace.as_str()));
    let owns_path = below.is_some_and(|rest| rest.starts_with('/'));
    let object = ObjectRef::of(&*webhook);
    let (others, holds_one) = controller.claims.held_below(Scope::Path, &format!("/{namespace}/"), &object);
    let full_with = (!holds_one && others >= MAX_WEBHOOKS).then_some(others);
    let taken = controller.claims.take(&object, &claims, |_| owns_path && full_with.is_none(), false);
    // A route that somebody else has changed is written again.
    let route = route.and_then(|record| record.facts.clone().ok());
    let was_by_name = route.as_ref().is_some_and(|route| route.by_name);
    Observed {
        status: controller.handle.status(&webhook),
        path_holder: taken.conflicts.into_iter().next().map(|(_, holder)| holder),
        owns_path,
        full_with,
        has_edge: edge.is_some(),
        keys_lost: generated.as_ref().map_or_else(
            || controller.secrets.was_deleted(&namespace, &key_secret, &uid(&*webhook)),
            |record| record.facts.is_err(),
        ),
        generated: generated.map(|record| record.facts.clone().map(|facts| facts.keys)),
        account: account::find(controller, &*webhook),
        service: service::find(controller, &*webhook, was_by_name),
        route_size: route.as_ref().and_then(|route| route.size).unwrap_or_default(),
        route: route.map(|route| route.digest),
        share: controller.secrets.share(&namespace),
        served: controller.replicas.serving(&uid(&*webhook)),
        rotation: in_effect(&policies, W::ROTATION, metadata, KeyRotation::new).rules,
        now: Timestamp::now(),
        webhook,
    }
}

//! Looks up what concerns a webhook. Reads stores only; nothing is decided and nothing written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::attached::{policies_for, rules_for};
use super::super::context::Context;
use super::{Webhook, account};
use crate::api::{Reason, WebhookStatus};
use crate::contract::report::ServedRoute;
use crate::domain::key_set::{KeyRecord, Turning};
use crate::kubernetes::uid;

/// Everything that the plan depends on.
pub struct Observed<W> {
    pub webhook: Arc<W>,
    pub status: WebhookStatus,
    /// Another webhook that holds the path, with its kind.
    pub path_holder: Option<String>,
    /// Whether there is an edge to serve it.
    pub has_edge: bool,
    /// The keys that the operator has made, or who else has changed them.
    pub made: Option<Result<Vec<KeyRecord>, String>>,
    /// Whether somebody else has changed or deleted them.
    pub keys_lost: bool,
    /// The credential of the broker account that it needs, by its fingerprint, or why there is none.
    pub account: Option<Result<String, (Reason, String)>>,
    /// Digest of the route as it was written.
    pub route: Option<String>,
    /// What every replica of the edge serves of it.
    pub served: BTreeMap<String, Option<ServedRoute>>,
    pub turning: Turning,
    pub now: Timestamp,
}

/// Name of the Secret with the keys that the operator makes.
#[must_use]
pub fn key_secret<W: Webhook>(webhook: &W) -> String {
    format!("{}-{}", webhook.meta().name.as_deref().unwrap_or_default(), W::KEY_SECRET)
}

/// Name of the Secret with the route, in the edge's namespace: never another webhook's.
pub fn route_secret<W: Webhook>(webhook: &W) -> String {
    format!("route-{}", uid(webhook))
}

/// Looks everything up.
pub fn observe<W: Webhook>(context: &Context, webhook: &Arc<W>) -> Observed<W> {
    let metadata = webhook.meta();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let policies = policies_for(context, &namespace);
    let made = context.webhook_secrets.get(&namespace, &key_secret(&**webhook));
    let edge = context.settings.edge_namespace.as_deref();
    let route = edge.and_then(|edge| context.webhook_secrets.get(edge, &route_secret(&**webhook)));
    Observed {
        status: W::statuses(&context.statuses).current(&**webhook, webhook.status()),
        path_holder: context.claims.holder_of_path(&**webhook),
        has_edge: edge.is_some(),
        keys_lost: made.as_ref().map_or_else(
            || context.webhook_secrets.was_lost(&namespace, &key_secret(&**webhook)),
            |record| record.facts.is_err(),
        ),
        made: made.map(|record| record.facts.clone().map(|facts| facts.keys)),
        account: account::find(context, &**webhook),
        // What somebody else has changed is written again.
        route: route.and_then(|record| record.facts.clone().ok()).map(|facts| facts.digest),
        served: context.edges.serving(&uid(&**webhook)),
        turning: rules_for(&policies, W::ROTATION, metadata, Turning::new).0,
        now: Timestamp::now(),
        webhook: webhook.clone(),
    }
}

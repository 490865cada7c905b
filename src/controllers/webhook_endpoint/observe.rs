//! Looks up what concerns an endpoint. Reads stores only; nothing is decided and nothing written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::attached::{policies_for, rules_for};
use super::super::context::Context;
use crate::api::{RotationTargetKind, WebhookEndpoint, WebhookEndpointStatus};
use crate::domain::key_set::{KeyRecord, Turning};
use crate::domain::name::Name;
use crate::edge::report::Served;
use crate::kubernetes::uid;

/// Everything that the plan depends on.
pub struct Observed {
    pub endpoint: Arc<WebhookEndpoint>,
    pub status: WebhookEndpointStatus,
    /// Another endpoint that holds the path.
    pub path_holder: Option<Name>,
    /// Whether there is an edge to serve it.
    pub has_edge: bool,
    /// The keys that the operator has made, or who else has changed them.
    pub made: Option<Result<Vec<KeyRecord>, String>>,
    /// Digest of the route as it was written.
    pub route: Option<String>,
    /// What every replica of the edge serves of it.
    pub served: BTreeMap<String, Option<Served>>,
    pub turning: Turning,
    pub now: Timestamp,
}

/// Name of the Secret with the keys that the operator makes.
#[must_use]
pub fn key_secret(endpoint: &WebhookEndpoint) -> String {
    format!("{}-webhook-keys", endpoint.metadata.name.as_deref().unwrap_or_default())
}

/// Name of the Secret with the route, in the edge's namespace: never another endpoint's.
pub fn route_secret(endpoint: &WebhookEndpoint) -> String {
    format!("route-{}", uid(endpoint))
}

/// Looks everything up.
pub fn observe(context: &Context, endpoint: &Arc<WebhookEndpoint>) -> Observed {
    let namespace = endpoint.metadata.namespace.clone().unwrap_or_default();
    let policies = policies_for(context, &namespace);
    let made = context.webhook_secrets.get(&namespace, &key_secret(endpoint));
    let edge = context.settings.edge_namespace.as_deref();
    let route = edge.and_then(|edge| context.webhook_secrets.get(edge, &route_secret(endpoint)));
    Observed {
        status: context.statuses.webhook_endpoints.current(&**endpoint, endpoint.status.as_ref()),
        path_holder: context.claims.holder_of_path(endpoint),
        has_edge: edge.is_some(),
        made: made.map(|record| record.facts.clone().map(|facts| facts.keys)),
        // What somebody else has changed is written again.
        route: route.and_then(|record| record.facts.clone().ok()).map(|facts| facts.digest),
        served: context.edges.serving(&uid(&**endpoint)),
        turning: rules_for(&policies, RotationTargetKind::WebhookEndpoint, &endpoint.metadata, Turning::new).0,
        now: Timestamp::now(),
        endpoint: endpoint.clone(),
    }
}

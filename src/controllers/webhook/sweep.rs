//! Withdraws routes from the edge whose webhook is gone, however it went: with its finalizer removed by hand, or before it
//! had one.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::sleep;

use super::observe::route_secret;
use crate::api::{WebhookDestination, WebhookEndpoint};
use crate::contract::component::Component;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::parts::Parts;
use crate::controllers::shared::webhook::Webhook;
use crate::stalls::elsewhere;

/// How soon a sweep that failed is repeated.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Sweeps at the start, and whenever a webhook is gone.
pub async fn sweep_forever(parts: &Parts) {
    loop {
        if sweep(parts).await {
            parts.sweep.notified().await;
        } else {
            sleep(RETRY_DELAY).await;
        }
    }
}

/// Returns whether nothing is left to withdraw.
async fn sweep(parts: &Parts) -> bool {
    let Some(edge) = parts.settings.edge_namespace.as_deref() else { return true };
    let (endpoints, destinations) = (parts.handles.of(), parts.handles.of());
    let Some(known) = elsewhere(move || known(&endpoints, &destinations)).await else { return true };
    let mut done = true;
    for (route, record) in parts.webhook_secrets.owned_by(None) {
        let is_route = *route.namespace == *edge && record.component == Some(Component::WebhookRoute);
        if is_route && !known.contains(&*route.name) {
            tracing::warn!(route = &*route.name, "webhook is gone; withdrawing its route");
            done &= parts.webhook_secrets.delete(edge, &route.name, None).await.is_ok();
        }
    }
    done
}

/// The names of the routes that there may be; `None` when that cannot be said.
fn known(endpoints: &Handle<WebhookEndpoint>, destinations: &Handle<WebhookDestination>) -> Option<HashSet<String>> {
    let mut known = HashSet::new();
    (collect(endpoints, &mut known) && collect(destinations, &mut known)).then_some(known)
}

/// Collects the names of the routes that there may be, and returns whether every object could be read. One that cannot
/// keeps its route here: the route is withdrawn when the object is refused.
fn collect<W: Webhook>(handle: &Handle<W>, routes: &mut HashSet<String>) -> bool {
    handle.store().iter(None).all(|(_, webhook)| webhook.map(|it| routes.insert(route_secret(&it))).is_ok())
}

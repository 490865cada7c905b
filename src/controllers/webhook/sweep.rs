//! Takes routes from the edge whose webhook is gone, however it went: with its finalizer removed by hand, or before it had one.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::context::Context;
use super::Webhook;
use super::observe::route_secret;
use crate::api::{WebhookDestination, WebhookEndpoint};
use crate::contract::Component;

/// How soon a sweep that failed is repeated.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells that a webhook is gone.
#[derive(Default)]
pub struct Gone(Notify);

impl Gone {
    /// A webhook is gone.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// Sweeps at the start, and whenever a webhook is gone.
pub async fn sweep_for_ever(context: &Context) {
    loop {
        if sweep(context).await {
            context.gone_webhooks.0.notified().await;
        } else {
            sleep(AGAIN).await;
        }
    }
}

/// Says whether nothing is left to sweep.
async fn sweep(context: &Context) -> bool {
    let Some(edge) = context.settings.edge_namespace.as_deref() else { return true };
    let mut known = HashSet::new();
    if !(collect::<WebhookEndpoint>(context, &mut known) && collect::<WebhookDestination>(context, &mut known)) {
        return true;
    }
    let mut done = true;
    for (route, record) in context.webhook_secrets.owned_by("") {
        if *route.namespace == *edge
            && record.component == Component::WebhookRoute.as_str()
            && !known.contains(&*route.name)
        {
            tracing::warn!(route = &*route.name, "a route whose webhook is gone is withdrawn");
            done &= context.webhook_secrets.delete(edge, &route.name, "").await.is_ok();
        }
    }
    done
}

/// Collects the routes that there may be, and says whether every object could be read. One that cannot counts as there: its
/// route is taken away when it is refused, not here.
fn collect<W: Webhook>(context: &Context, routes: &mut HashSet<String>) -> bool {
    W::store(&context.stores).iter(None).all(|(_, webhook)| webhook.map(|it| routes.insert(route_secret(&it))).is_ok())
}

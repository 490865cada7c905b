//! Takes routes from the edge whose endpoint is gone, however it went: with its finalizer removed by hand, or before it had one.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::context::Context;
use super::observe::route_secret;
use crate::edge::watch::ROUTE;

/// How soon a sweep that failed is repeated.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells that an endpoint is gone.
#[derive(Default)]
pub struct Gone(Notify);

impl Gone {
    /// An endpoint is gone.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// Sweeps at the start, and whenever an endpoint is gone.
pub async fn sweep_for_ever(context: &Context) {
    loop {
        if sweep(context).await {
            context.gone_endpoints.0.notified().await;
        } else {
            sleep(AGAIN).await;
        }
    }
}

/// Says whether nothing is left to sweep.
async fn sweep(context: &Context) -> bool {
    let Some(edge) = context.settings.edge_namespace.as_deref() else { return true };
    // What cannot be read counts as there: its route is taken away when it is refused, not here.
    let known = context.stores.webhook_endpoints.iter(None);
    let mut readable = HashSet::new();
    for (_, endpoint) in known {
        match endpoint {
            Ok(endpoint) => readable.insert(route_secret(&endpoint)),
            Err(_) => return true,
        };
    }
    let mut done = true;
    for (route, record) in context.webhook_secrets.owned_by("") {
        if *route.namespace == *edge && record.component == ROUTE && !readable.contains(&*route.name) {
            tracing::warn!(route = &*route.name, "a route without an endpoint is withdrawn");
            done &= context.webhook_secrets.delete(edge, &route.name, "").await.is_ok();
        }
    }
    done
}

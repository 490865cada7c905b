//! `WebhookEndpoint`: observe, plan, apply. Its route goes to the edge as a Secret in the edge's own namespace, so that the
//! edge needs no rights anywhere else.

mod apply;
mod keys;
mod observe;
mod plan;
mod sweep;

use std::sync::Arc;

use super::Context;
use crate::api::WebhookEndpoint;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;

pub use keys::{ENTRIES, EXTERNAL_LABEL};
pub use observe::key_secret;
pub use sweep::{Gone, sweep_for_ever};

/// Keeps an endpoint until the edge does not serve it any more.
pub const FINALIZER: &str = "credence.dev/withdraw-route";

/// Brings one endpoint to what its spec says.
///
/// # Errors
/// What the API server said.
pub async fn reconcile(context: Arc<Context>, endpoint: Arc<WebhookEndpoint>) -> Result<Done, Error> {
    let observed = observe::observe(&context, &endpoint);
    if endpoint.metadata.deletion_timestamp.is_some() {
        return apply::clean_up(&context, &endpoint).await;
    }
    if context.is_terminating(endpoint.metadata.namespace.as_deref()) {
        return Ok(Done::gone());
    }
    let plan = plan::plan(&observed);
    apply::apply(&context, &endpoint, &observed, plan).await
}

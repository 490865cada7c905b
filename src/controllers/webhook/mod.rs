//! `WebhookEndpoint` and `WebhookDestination`: observe, plan, apply, one way for both. What the edge needs of one goes there as a
//! Secret in the edge's own namespace, so that the edge needs no rights anywhere else.

mod account;
mod apply;
mod keys;
mod kind;
mod observe;
mod plan;
mod program;
mod settle;
mod sweep;
mod wake;

use std::sync::Arc;

use super::Context;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;

pub use keys::{ENTRIES, EXTERNAL_LABEL};
pub use kind::{KeySource, Webhook};
pub use observe::key_secret;
pub use sweep::{Gone, sweep_for_ever};

/// Keeps a webhook until the edge does not serve it any more.
pub const FINALIZER: &str = "credence.dev/withdraw-route";

/// Brings one webhook to what its spec says.
///
/// # Errors
/// What the API server said.
pub async fn reconcile<W: Webhook>(context: Arc<Context>, webhook: Arc<W>) -> Result<Done, Error> {
    let observed = observe::observe(&context, &webhook);
    if webhook.meta().deletion_timestamp.is_some() {
        return apply::clean_up(&context, &*webhook).await;
    }
    if context.is_terminating(webhook.meta().namespace.as_deref()) {
        return Ok(Done::gone());
    }
    let plan = plan::plan(&observed);
    apply::apply(&context, &*webhook, &observed, plan).await
}

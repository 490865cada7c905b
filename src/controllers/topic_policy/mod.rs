//! `TopicPolicy`: observe, plan, apply.

mod apply;
mod observe;
mod plan;

use std::sync::Arc;

use super::Context;
use crate::api::TopicPolicy;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;

/// Keeps a policy until its rights are revoked.
pub const FINALIZER: &str = "credence.dev/revoke-grants";

/// Brings one policy to what its spec says.
///
/// # Errors
/// What the API server said.
pub async fn reconcile(context: Arc<Context>, policy: Arc<TopicPolicy>) -> Result<Done, Error> {
    let (plan, standing) = {
        let observed = observe::observe(&context, &policy)?;
        (plan::plan(&observed), observed.standing)
    };
    if policy.metadata.deletion_timestamp.is_some() {
        return apply::clean_up(&context, &policy, &standing).await;
    }
    if context.is_terminating(policy.metadata.namespace.as_deref()) {
        // It is deleted next, and revoked then; until then everything that it names goes piece by piece.
        return Ok(Done::gone());
    }
    apply::apply(&context, &policy, &standing, plan).await
}

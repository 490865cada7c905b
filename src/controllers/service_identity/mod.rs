//! `ServiceIdentity`: observe, plan, apply.

mod accounts;
mod apply;
mod credentials;
mod login;
mod observe;
pub(super) mod plan;

use std::sync::Arc;

use super::Context;
use crate::api::ServiceIdentity;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;

pub use login::Logins;

/// Brings one identity to what its spec says.
///
/// # Errors
/// What the API server said.
pub async fn reconcile(context: Arc<Context>, identity: Arc<ServiceIdentity>) -> Result<Done, Error> {
    if identity.metadata.deletion_timestamp.is_some() {
        // Secrets go with their owner, rights on brokers with the policies that give them.
        return Ok(Done::gone());
    }
    if context.is_terminating(identity.metadata.namespace.as_deref()) {
        // Nothing can be created there any more, and the identity goes with the rest.
        return Ok(Done::gone());
    }
    let observed = observe::observe(&context, &identity)?;
    let plan = plan::plan(&observed);
    apply::apply(&context, &identity, &observed, plan).await
}

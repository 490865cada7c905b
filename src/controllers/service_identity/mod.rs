//! `ServiceIdentity`: observe, plan, apply.

mod apply;
mod login;
mod observe;
pub(super) mod plan;

use std::sync::Arc;

use super::Context;
use crate::api::ServiceIdentity;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Next;

pub use observe::rules_for;

/// Brings one identity to what its spec says.
///
/// # Errors
/// What the API server said.
pub async fn reconcile(context: Arc<Context>, identity: Arc<ServiceIdentity>) -> Result<Next, Error> {
    if identity.metadata.deletion_timestamp.is_some() {
        // Secrets go with their owner, rights on brokers with the policies that give them.
        return Ok(None);
    }
    let observed = observe::observe(&context, &identity);
    let plan = plan::plan(&observed);
    apply::apply(&context, &identity, &observed, plan).await
}

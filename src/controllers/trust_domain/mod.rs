//! `TrustDomain`: observe, plan, apply.

mod apply;
mod bundle;
mod observe;
mod plan;

use std::sync::Arc;

use super::Context;
use crate::api::TrustDomain;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;

/// Keeps others from deleting the authority of identities that still exist.
pub const FINALIZER: &str = "credence.dev/in-use";

/// Brings one trust domain to what its spec says.
///
/// # Errors
/// What the API server or the issuer said.
pub async fn reconcile(context: Arc<Context>, domain: Arc<TrustDomain>) -> Result<Done, Error> {
    let observed = observe::observe(&context, &domain);
    let plan = plan::plan(&observed);
    apply::apply(&context, &domain, &observed, plan).await
}

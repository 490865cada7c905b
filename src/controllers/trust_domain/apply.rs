//! Carries out the plan of a trust domain, and writes its status.

use super::authority::provide;
use super::bundle::publish;
use super::controller::{Controller, FINALIZER};
use super::describe::{describe, next_look};
use super::observe::Observed;
use super::plan::{Deletion, Plan};
use super::tokens;
use crate::contract::component::Component;
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::signal::Signal;
use crate::controllers::shared::timing::wait;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::{kept_for, uid};

pub async fn apply(controller: &Controller, observed: &Observed, plan: Plan) -> Result<Done, Error> {
    let (domain, name) = (&*observed.domain, observed.name());
    match plan.deletion {
        Deletion::Free => {
            controller.authorities.remove(name);
            delete_all(controller, observed).await?;
            controller.handle.set_finalizer(domain, FINALIZER, false).await?;
            return Ok(Done::gone());
        }
        Deletion::Waiting => {}
        Deletion::NotRequested => {
            if !controller.handle.set_finalizer(domain, FINALIZER, true).await? {
                return Ok(Done::gone());
            }
        }
    }
    detach(controller, observed).await?;
    let signed_before = controller.authorities.get(name).map(|active| active.source.clone());
    let provided = provide(controller, observed, &plan.authority).await?;
    let outcome = match provided {
        Ok(provided) => {
            let publication = publish(controller, observed, &provided.authority).await;
            let issuer = tokens::provide(controller, observed, &provided.authority).await?;
            Ok((provided, publication, issuer))
        }
        Err(refusal) => {
            // Nothing is signed by an authority that is in doubt; what was issued stays as it is.
            controller.authorities.remove(name);
            Err(refusal)
        }
    };
    let signs_now = outcome.as_ref().ok().map(|(provided, ..)| provided.authority.source.clone());
    if signed_before != signs_now {
        controller.signals.emit(Signal::AuthorityChanged(name.into()));
    }
    for generation in &plan.retire {
        let secret = observed.intermediate_secret(*generation);
        controller.certificates.delete(&controller.settings.namespace, &secret, Some(&uid(domain))).await?;
    }
    let repair_at = outcome.as_ref().ok().and_then(|(_, publication, _)| publication.next);
    let issuer = outcome.as_ref().ok().and_then(|(_, _, issuer)| issuer.as_ref()?.as_ref().ok()?.until);
    let keys_at = issuer.map(|until| wait(observed.now, until));
    let (status, mut conditions) = describe(observed, &plan, outcome);
    let looks = keys_at.into_iter().chain(repair_at).chain(next_look(&status, &conditions, observed.now));
    let next = looks.min();
    let ready = format!("issues for {}", domain.spec.domain);
    let is_rotated = status.token_keys != observed.status.token_keys;
    let conclusion = Conclusion { object: domain, current: &observed.status, status, ready, next, now: observed.now };
    let done = controller.handle.conclude(conclusion, &mut conditions).await?;
    if is_rotated {
        let requests = observed.rotation.requests.iter().map(|request| &request.policy);
        for policy in requests.chain([&observed.rotation.policy]).filter_map(|policy| policy.0.clone()) {
            controller.signals.emit(Signal::RotationProgressed(policy));
        }
    }
    Ok(done.unwrap_or_else(Done::gone))
}

/// Keeps the garbage collector from what must outlive a request to delete the trust domain: a foreground deletion would take
/// its keys while identities still depend on them.
async fn detach(controller: &Controller, observed: &Observed) -> Result<(), Error> {
    let annotations = kept_for(&*observed.domain);
    for secret in &observed.hanging.secrets {
        controller.certificates.detach(secret, &annotations).await?;
    }
    for bundle in &observed.hanging.bundles {
        controller.bundles.detach(bundle, &annotations).await?;
    }
    Ok(())
}

/// Deletes everything that was written for a trust domain. The root goes last: from it alone everything could be made again.
async fn delete_all(controller: &Controller, observed: &Observed) -> Result<(), Error> {
    let owner = uid(&*observed.domain);
    for (bundle, _) in controller.bundles.owned_by(Some(&owner)) {
        controller.bundles.delete(&bundle.namespace, &bundle.name, Some(&owner)).await?;
    }
    for (secret, _) in controller.token_secrets.owned_by(Some(&owner)) {
        controller.token_secrets.delete(&secret.namespace, &secret.name, Some(&owner)).await?;
    }
    let mut secrets = controller.certificates.owned_by(Some(&owner));
    secrets.sort_by_key(|(_, record)| record.component == Some(Component::Root));
    for (secret, _) in secrets {
        controller.certificates.delete(&secret.namespace, &secret.name, Some(&owner)).await?;
    }
    Ok(())
}

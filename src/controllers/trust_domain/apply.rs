//! Carries out the plan of a trust domain, and writes its status.

use super::authority::provide;
use super::bundle::publish;
use super::controller::{Controller, FINALIZER};
use super::describe::{describe, next_look};
use super::observe::Observed;
use super::plan::{Deletion, Plan};
use crate::controllers::shared::handle::Conclusion;
use crate::controllers::shared::signal::Signal;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;
use crate::kubernetes::uid;

pub async fn apply(controller: &Controller, observed: &Observed, plan: Plan) -> Result<Done, Error> {
    let (domain, name) = (&*observed.domain, observed.name());
    match plan.deletion {
        Deletion::Free => {
            controller.authorities.remove(name);
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
    let signed_before = controller.authorities.get(name).map(|active| active.source.clone());
    let provided = provide(controller, observed, &plan.authority).await?;
    let outcome = match provided {
        Ok(provided) => {
            let publication = publish(controller, observed, &provided.authority).await;
            Ok((provided, publication))
        }
        Err(refusal) => {
            // Nothing is signed by an authority that is in doubt; what was issued stays as it is.
            controller.authorities.remove(name);
            Err(refusal)
        }
    };
    let signs_now = outcome.as_ref().ok().map(|(provided, _)| provided.authority.source.clone());
    if signed_before != signs_now {
        controller.signals.emit(Signal::AuthorityChanged(name.into()));
    }
    for generation in &plan.retire {
        let secret = observed.intermediate_secret(*generation);
        controller.certificates.delete(&controller.settings.namespace, &secret, Some(&uid(domain))).await?;
    }
    let repair_at = outcome.as_ref().ok().and_then(|(_, publication)| publication.next);
    let (status, mut conditions) = describe(observed, &plan, outcome);
    let next = repair_at.into_iter().chain(next_look(&status, &conditions, observed.now)).min();
    let ready = format!("issues for {}", domain.spec.domain);
    let conclusion = Conclusion { object: domain, current: &observed.status, status, ready, next, now: observed.now };
    let done = controller.handle.conclude(conclusion, &mut conditions).await?;
    Ok(done.unwrap_or_else(Done::gone))
}

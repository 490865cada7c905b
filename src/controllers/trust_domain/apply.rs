//! Carries the plan of a trust domain out and writes its status.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::context::{ActiveAuthority, Context};
use super::super::material;
use super::FINALIZER;
use super::bundle::publish;
use super::observe::Observed;
use super::plan::{AuthorityPlan, INTERMEDIATE, Plan, ROOT};
use crate::api::{AuthorityStatus, ConditionType, Conditions, Reason, TrustDomain, TrustDomainStatus};
use crate::domain::secret::SecretText;
use crate::issuers::self_signed::{AuthorityMaterial, make_intermediate, make_root, successor_due};
use crate::issuers::{IssuerError, ca, pem};
use crate::kubernetes::error::{Class, Error};
use crate::kubernetes::run::{Done, Next};
use crate::kubernetes::status::set_finalizer;
use crate::kubernetes::{owned_metadata, uid};

pub async fn apply(
    context: &Arc<Context>,
    domain: &TrustDomain,
    observed: &Observed,
    plan: Plan,
) -> Result<Done, Error> {
    let current = context.statuses.trust_domains.current(domain, domain.status.as_ref());
    let mut status = TrustDomainStatus { conditions: Vec::new(), ..current.clone() };
    let mut conditions = Conditions::new();
    conditions.met(ConditionType::Accepted, Reason::Valid, "the spec is valid");
    let name = domain.metadata.name.clone().unwrap_or_default();

    if domain.metadata.deletion_timestamp.is_some() {
        if !plan.in_use {
            context.authorities.remove(&name);
            set_finalizer(&context.client, domain, FINALIZER, false).await?;
            return Ok(Done::gone());
        }
        let message = format!(
            "{} ServiceIdentities still belong to this trust domain; it goes when they are deleted",
            observed.identities
        );
        conditions.unmet(ConditionType::Accepted, Reason::InUse, message);
    } else if !set_finalizer(&context.client, domain, FINALIZER, true).await? {
        return Ok(Done::gone());
    }

    let mut next = Vec::new();
    let before = context.authorities.get(&name);
    let mut remark = missing_root(domain, observed);
    let mut provided = provide(context, domain, observed, &plan.authority).await;
    if let (AuthorityPlan::Succeed(generation @ 2..), Err(Error::Issuer(error))) = (&plan.authority, &provided) {
        // The one before still signs; what is wrong with the root has to be mended before it ends.
        remark = Some(format!("its successor cannot be made: {error}"));
        provided = provide(context, domain, observed, &AuthorityPlan::Load(generation - 1)).await;
    }
    let authority = match provided {
        Ok(Ok(authority)) => Some(authority),
        Ok(Err((reason, message))) => {
            conditions.unmet(ConditionType::AuthorityReady, reason, message);
            None
        }
        Err(Error::Issuer(error)) => {
            conditions.unmet(ConditionType::AuthorityReady, Reason::IssuerSecretInvalid, error.to_string());
            None
        }
        Err(error @ Error::NotOwned { .. }) => {
            conditions.unmet(ConditionType::AuthorityReady, Reason::NotOwned, error.to_string());
            None
        }
        Err(error) if error.class() == Class::NeedsUser => {
            conditions.unmet(ConditionType::AuthorityReady, Reason::IssueFailed, error.to_string());
            None
        }
        Err(error) => return Err(error),
    };
    match &authority {
        Some((active, secret_name)) => {
            let ends = active.signer.not_after();
            let mut message = format!("signs with {secret_name}, valid until {ends}");
            if let Some(remark) = &remark {
                message = format!("{message}; {remark}");
            }
            conditions.met(ConditionType::AuthorityReady, Reason::AuthorityActive, message);
            status.authority = Some(AuthorityStatus {
                secret_name: secret_name.clone(),
                fingerprint: active.signer.fingerprint(),
                root_fingerprint: domain.spec.issuer.self_signed.as_ref().map(|_| active.signer.root_fingerprint()),
                not_after: Some(Time(ends)),
                renew_at: domain.spec.issuer.self_signed.as_ref().map(|_| Time(successor_due(ends))),
            });
            next.extend(publish(context, domain, observed, active, &mut status, &mut conditions).await);
        }
        None => {
            // Nothing is signed by an authority that is in doubt; what was issued stays as it is.
            context.authorities.remove(&name);
            conditions.unmet(ConditionType::BundlePublished, Reason::Blocked, "waits for the authority");
        }
    }
    let signs = authority.as_ref().map(|(active, _)| active.source.clone());
    if before.map(|active| active.source.clone()) != signs {
        context.identities_of_trust_domain(&name);
    }
    for generation in &plan.retire {
        let secret = format!("{name}-intermediate-{generation}");
        context.secrets.delete(&context.settings.namespace, &secret, &uid(domain)).await?;
    }

    conditions.conclude(format!("issues for {}", domain.spec.domain));
    status.observed_generation = domain.metadata.generation;
    status.conditions = conditions.merge(&current.conditions, domain.metadata.generation, observed.now);
    context.statuses.trust_domains.write(&context.client, domain, &current, &status).await?;
    context.events.transition(domain, &current.conditions, &conditions).await;
    next.extend(next_look(&status, conditions.ready(), observed.now));
    Ok(Done::with(&conditions, next.into_iter().min()))
}

/// A root that is gone is not missed until the next intermediate is due; said early, there is time to restore it.
fn missing_root(domain: &TrustDomain, observed: &Observed) -> Option<String> {
    let lacks =
        domain.spec.issuer.self_signed.is_some() && observed.root.is_none() && !observed.intermediates.is_empty();
    let name = domain.metadata.name.as_deref().unwrap_or_default();
    lacks.then(|| format!("the Secret {name}-root-1 is gone: restore it before the next intermediate is due"))
}

/// A refused authority: why, in words.
type Refusal = (Reason, String);

async fn provide(
    context: &Context,
    domain: &TrustDomain,
    observed: &Observed,
    plan: &AuthorityPlan,
) -> Result<Result<(Arc<ActiveAuthority>, String), Refusal>, Error> {
    let name = domain.metadata.name.clone().unwrap_or_default();
    let namespace = &context.settings.namespace;
    let (generation, bring) = match plan {
        AuthorityPlan::Refuse(reason, message) => return Ok(Err((*reason, message.clone()))),
        AuthorityPlan::Create => {
            let algorithm = key_algorithm(domain);
            let root = make_root(&domain.spec.domain, algorithm, observed.now)?;
            let fingerprint = root.certificate.fingerprint();
            store(context, domain, &format!("{name}-root-1"), ROOT, &root, &root.certificate_pem, &fingerprint).await?;
            succeed(context, domain, observed, 1).await?;
            (1, None)
        }
        AuthorityPlan::Succeed(generation) => {
            succeed(context, domain, observed, *generation).await?;
            (*generation, None)
        }
        AuthorityPlan::Load(generation) => (*generation, None),
        AuthorityPlan::Restore(generation) => match restore(context, domain, *generation).await? {
            Ok(()) => (*generation, None),
            Err(refusal) => return Ok(Err(refusal)),
        },
        AuthorityPlan::Bring { secret, source } => (0, Some((secret.clone(), source.clone()))),
    };
    let (secret, source) = bring.unwrap_or_else(|| {
        let secret = format!("{name}-intermediate-{generation}");
        (secret.clone(), format!("{secret}/{}", domain.metadata.generation.unwrap_or(0)))
    });
    if let Some(active) = context.authorities.get(&name)
        && active.source == source
        && active.signer.not_after() > observed.now
    {
        return Ok(Ok((active, secret)));
    }
    let Some(found) = context.secrets.read(namespace, &secret).await? else {
        return Ok(Err((Reason::IssuerSecretNotFound, format!("the Secret {secret} does not exist in {namespace}"))));
    };
    let roots = domain.spec.bundle.as_ref().map(|bundle| bundle.additional_roots.as_slice()).unwrap_or_default();
    let mut signer = ca::load(&found.data.unwrap_or_default(), roots, observed.now)?;
    // Generations of one root trust each other's certificates.
    signer.trusted.extend(observed.intermediates.values().flatten().map(|known| known.fingerprint.clone()));
    Ok(Ok((context.authorities.set(&name, ActiveAuthority { signer, source }), secret)))
}

/// Makes the intermediate of a generation under the stored root.
async fn succeed(context: &Context, domain: &TrustDomain, observed: &Observed, generation: u32) -> Result<(), Error> {
    let now = observed.now;
    let name = domain.metadata.name.clone().unwrap_or_default();
    let root_name = format!("{name}-root-1");
    let root = context.secrets.read(&context.settings.namespace, &root_name).await?;
    let data = root.and_then(|root| root.data).unwrap_or_default();
    let text = |key: &str| data.get(key).map(|value| value.0.clone()).unwrap_or_default();
    let certificates = pem::certificates(&text("tls.crt"), &format!("tls.crt of the Secret {root_name}"))?;
    let certificate = certificates.first().ok_or_else(|| Error::Bug("a list without a first entry".into()))?;
    let before = observed.intermediates.values().flatten().last().map(|before| before.authority.clone());
    let known = domain.status.as_ref().and_then(|status| status.authority.as_ref()?.root_fingerprint.clone());
    if before.or(known).is_some_and(|root| root != certificate.fingerprint()) {
        let why = format!("the Secret {root_name} does not hold the root of before; restore it from a backup");
        return Err(IssuerError::Invalid(why).into());
    }
    let key = SecretText::new(String::from_utf8_lossy(&text("tls.key")).into_owned());
    let algorithm = key_algorithm(domain);
    let made = make_intermediate(&domain.spec.domain, generation, algorithm, certificate, &key, now)?;
    let secret = format!("{name}-intermediate-{generation}");
    let root_pem = pem::encode(&certificate.der);
    store(context, domain, &secret, INTERMEDIATE, &made, &root_pem, &certificate.fingerprint()).await
}

/// Takes back the Secret of an intermediate that somebody else wrote, as a restore from a backup does. What it holds
/// must be the authority that status knows, and able to sign; anything else is left alone and not used.
async fn restore(context: &Context, domain: &TrustDomain, generation: u32) -> Result<Result<(), Refusal>, Error> {
    let name = domain.metadata.name.clone().unwrap_or_default();
    let secret = format!("{name}-intermediate-{generation}");
    let known = domain.status.as_ref().and_then(|status| status.authority.as_ref());
    let found = context.secrets.read(&context.settings.namespace, &secret).await?;
    let data = found.and_then(|found| found.data).unwrap_or_default();
    let now = Timestamp::now();
    let checked = ca::load(&data, &[], now).ok().filter(|signer| {
        known.is_some_and(|known| known.secret_name == secret && known.fingerprint == signer.fingerprint())
    });
    if checked.is_none() {
        let message = format!(
            "the Secret {secret} was changed by somebody else and does not hold the authority of before; nothing is \
             signed with it. Restore it from a backup"
        );
        return Ok(Err((Reason::AuthorityAltered, message)));
    }
    let text = |key: &str| data.get(key).map(|value| value.0.clone()).unwrap_or_default();
    let first = |key: &str| -> Result<pem::Certificate, Error> {
        let found = pem::certificates(&text(key), key)?.into_iter().next();
        found.ok_or_else(|| Error::Bug("a list without a first entry".into()))
    };
    let (certificate, root) = (first("tls.crt")?, first("ca.crt")?);
    let made = AuthorityMaterial {
        certificate_pem: pem::encode(&certificate.der),
        key: SecretText::new(String::from_utf8_lossy(&text("tls.key")).into_owned()),
        certificate,
    };
    let root_pem = pem::encode(&root.der);
    store(context, domain, &secret, INTERMEDIATE, &made, &root_pem, &root.fingerprint()).await?;
    Ok(Ok(()))
}

async fn store(
    context: &Context,
    domain: &TrustDomain,
    secret: &str,
    component: &str,
    made: &AuthorityMaterial,
    root_pem: &str,
    signer: &str,
) -> Result<(), Error> {
    let facts = material::describe(&made.certificate, Timestamp::now(), signer, "", "");
    let data = [("tls.crt", made.certificate_pem.as_str()), ("tls.key", made.key.expose()), ("ca.crt", root_pem)];
    let annotations = material::annotations(&facts);
    let secret = Secret {
        metadata: owned_metadata(domain, &context.settings.namespace, secret, component, annotations),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into()))).collect()),
        ..Secret::default()
    };
    context.secrets.put(&secret).await
}

fn key_algorithm(domain: &TrustDomain) -> crate::api::KeyAlgorithm {
    domain.spec.issuer.self_signed.as_ref().and_then(|issuer| issuer.key_algorithm).unwrap_or_default()
}

/// When the authority needs care next; soon when something is wrong that no watch would tell.
fn next_look(status: &TrustDomainStatus, ready: bool, now: Timestamp) -> Next {
    if !ready {
        return Some(Duration::from_secs(15));
    }
    let authority = status.authority.as_ref()?;
    let times = [authority.renew_at.as_ref(), authority.not_after.as_ref()];
    let next = times.into_iter().flatten().map(|time| time.0).filter(|time| *time > now).min()?;
    Some(super::super::wait(now, next))
}

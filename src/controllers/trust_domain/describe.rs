//! Describes a trust domain in its status. No client here.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::authority::Provided;
use super::bundle::Publication;
use super::observe::Observed;
use super::plan::{Deletion, Plan};
use super::subject_issuers::SubjectIssuers;
use super::tokens::{Issuer, KeySet};
use crate::api::{
    AuthorityStatus, BundleStatus, ConditionType, Conditions, Reason, TokenKeyPhase, TokenKeyStatus, TrustDomainStatus,
};
use crate::controllers::shared::timing::{retry_in, wait};
use crate::domain::refusal::Refusal;
use crate::domain::text::{counted, listed};
use crate::domain::token_keys::{TokenKey, Wait};
use crate::issuers::self_signed::successor_due;
use crate::kubernetes::run::Next;

/// How many namespaces are named in status.
const NAMED: usize = 20;
/// How soon a trust domain that is not Ready is looked at again, at first and at most: no watch reports everything that may heal it.
const RECHECK: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(120));

/// What the plan came to: the authority with the bundle that it was published in, and the issuer of tokens; or why there is none.
pub type Outcome = Result<(Provided, Publication, Issuer), Refusal>;

/// The status, conditions aside, and the conditions.
pub fn describe(observed: &Observed, plan: &Plan, outcome: Outcome) -> (TrustDomainStatus, Conditions) {
    let mut status = observed.status.clone();
    let mut conditions = Conditions::new();
    if plan.deletion == Deletion::NotRequested {
        conditions.met(ConditionType::Accepted, Reason::Valid, "the spec is valid");
    } else {
        let users = counted(observed.identities.len(), "ServiceIdentity", "ServiceIdentities");
        let message = format!(
            "this trust domain is still used by {users}; it is deleted when the last one is gone: {}",
            listed(&observed.identities)
        );
        conditions.unmet(ConditionType::Accepted, Reason::InUse, message);
    }
    match outcome {
        Ok((provided, publication, issuer)) => {
            let signer = &provided.authority.signer;
            let remark = provided.remark.as_ref().or(plan.remark.as_ref());
            let remark = remark.map(|remark| format!("; {remark}")).unwrap_or_default();
            let (secret_name, ends) = (provided.secret.clone(), signer.not_after());
            let message = format!("signs with {secret_name}, valid until {ends}{remark}");
            conditions.met(ConditionType::AuthorityReady, Reason::AuthorityActive, message);
            let is_embedded = observed.domain.spec.issuer.self_signed.is_some();
            status.authority = Some(AuthorityStatus {
                secret_name,
                fingerprint: signer.fingerprint(),
                root_fingerprint: is_embedded.then(|| signer.root_fingerprint()),
                not_after: Some(Time(ends)),
                renew_at: is_embedded.then(|| Time(successor_due(ends))),
            });
            describe_bundle(observed, &provided, publication, &mut status, &mut conditions);
            describe_issuer(observed, issuer, &mut status, &mut conditions);
        }
        Err(Refusal { reason, message }) => {
            conditions.unmet(ConditionType::AuthorityReady, reason, message);
            conditions.unmet(ConditionType::BundlePublished, Reason::Blocked, "waits for the authority");
        }
    }
    (status, conditions)
}

fn describe_bundle(
    observed: &Observed,
    provided: &Provided,
    Publication { config_map, mut lagging, .. }: Publication,
    status: &mut TrustDomainStatus,
    conditions: &mut Conditions,
) {
    let signer = &provided.authority.signer;
    let namespaces = observed.selected.len();
    match lagging.first() {
        None => {
            let namespaces = counted(namespaces, "namespace", "namespaces");
            let message = format!("ConfigMap {config_map} is in {namespaces}{}", additional_roots(observed));
            conditions.met(ConditionType::BundlePublished, Reason::Published, message);
        }
        Some(first) => {
            let message = format!("{} of {namespaces} namespaces lack the bundle; first: {first}", lagging.len());
            conditions.unmet(ConditionType::BundlePublished, Reason::PublishFailed, message);
        }
    }
    lagging.truncate(NAMED);
    status.bundle = Some(BundleStatus {
        config_map_name: config_map,
        hash: signer.bundle_hash.clone(),
        roots: u32::try_from(signer.root_count()).unwrap_or(u32::MAX),
        namespaces: u32::try_from(namespaces).unwrap_or(u32::MAX),
        lagging,
    });
}

/// The keys of the issuer, what their rotation waits for, and whose users services may act for.
fn describe_issuer(observed: &Observed, issuer: Issuer, status: &mut TrustDomainStatus, conditions: &mut Conditions) {
    (status.token_keys, status.subject_issuers) = (Vec::new(), Vec::new());
    match issuer {
        None => {}
        Some(Ok(KeySet { keys, waits, subject_issuers, .. })) => {
            let url = observed.domain.spec.tokens.as_ref().map(|tokens| tokens.issuer.as_str()).unwrap_or_default();
            let waits = match waits {
                None => String::new(),
                Some(Wait::Publication(until)) => {
                    format!("; the next key signs once it has been published until {until}")
                }
                Some(Wait::Replicas) => {
                    "; the next key signs once every replica of the token issuer serves the present keys".to_owned()
                }
                Some(Wait::Retirement(until)) => {
                    format!("; the next key signs once a former key is dropped at {until}")
                }
            };
            conditions.met(
                ConditionType::KeysReady,
                Reason::KeysStored,
                format!("access tokens are issued by {url}{waits}"),
            );
            status.token_keys = keys.iter().map(describe_key).collect();
            status.subject_issuers = subject_issuers.describe(&observed.domain);
            describe_subject_issuers(&subject_issuers, conditions);
        }
        Some(Err(Refusal { reason, message })) => conditions.unmet(ConditionType::KeysReady, reason, message),
    }
}

/// Whether services can act for users. A provider that is away while its former keys are used changes nothing.
fn describe_subject_issuers(SubjectIssuers { documents, problems }: &SubjectIssuers, conditions: &mut Conditions) {
    let mut unusable = problems.values().filter(|problem| !problem.is_usable).map(|problem| &problem.refusal);
    match unusable.next() {
        Some(Refusal { reason, message }) => {
            let more = unusable.count();
            let more = if more > 0 { format!("; {more} more cannot be used either") } else { String::new() };
            conditions.unmet(ConditionType::SubjectIssuersReady, *reason, format!("{message}{more}"));
        }
        None if documents.is_empty() => {}
        None => {
            let issuers = counted(documents.len(), "subject issuer", "subject issuers");
            let message = format!("services may act for the users of {issuers}");
            conditions.met(ConditionType::SubjectIssuersReady, Reason::KeysStored, message);
        }
    }
}

fn describe_key(key: &TokenKey) -> TokenKeyStatus {
    let (phase, since) = match (key.signs_since, key.retires_since) {
        (_, Some(since)) => (TokenKeyPhase::Retiring, since),
        (Some(since), None) => (TokenKeyPhase::Active, since),
        (None, None) => (TokenKeyPhase::Prepared, key.published_since),
    };
    let (published_since, until) = (Time(key.published_since), key.ends().map(Time));
    TokenKeyStatus { id: key.id.clone(), phase, since: Time(since), published_since, until }
}

/// What additional roots mean, if there are any.
fn additional_roots(observed: &Observed) -> String {
    let bundle = observed.domain.spec.bundle.as_ref();
    match bundle.map_or(0, |bundle| bundle.additional_roots.len()) {
        0 => String::new(),
        count => format!(
            "; whoever holds the key of one of the additionalRoots ({}) can issue every identity of the trust domain, at \
             the edge and at brokers; remove them once the succession of roots is over",
            counted(count, "entry", "entries")
        ),
    }
}

/// When the authority is to be looked at next. `status` has the conditions as they were before.
pub fn next_look(status: &TrustDomainStatus, conditions: &Conditions, now: Timestamp) -> Next {
    if conditions.is_unmet() {
        return Some(retry_in(&status.conditions, ConditionType::Ready, now, RECHECK));
    }
    let authority = status.authority.as_ref()?;
    let times = [authority.renew_at.as_ref(), authority.not_after.as_ref()];
    let next = times.into_iter().flatten().map(|time| time.0).filter(|time| *time > now).min()?;
    Some(wait(now, next))
}

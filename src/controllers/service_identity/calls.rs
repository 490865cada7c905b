//! The calls of an identity with access tokens: looks up the other side of each, describes them, and hands what both sides agree on
//! to the token issuer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::controller::Controller;
use super::observe::Observed;
use crate::api::{CallRule, CallStatus, CallsStatus, Reason, ServiceIdentity, TrustDomain};
use crate::contract::tokens::CallerDocument;
use crate::controllers::shared::handle::Handle;
use crate::controllers::shared::namespaces::Namespaces;
use crate::domain::calls::{Peer, Side, describe, named, scopes, users};
use crate::domain::identity::SpiffeId;
use crate::domain::name::Name;
use crate::domain::refusal::Refusal;
use crate::domain::selector;
use crate::kubernetes::error::Error;
use crate::stalls::elsewhere;

/// The identities that an identity names, those of them that there are.
struct Peers {
    callees: BTreeMap<Name, Option<Peer>>,
    callers: BTreeMap<Name, Option<Peer>>,
    /// The audiences of tokens that name users who the identity may act for, by the name of the identity provider.
    users: BTreeMap<String, BTreeSet<String>>,
}

/// Describes the calls of an accepted identity, and hands them over. The error says why it has none.
pub async fn settle(
    controller: &Controller,
    observed: &Observed,
    spiffe_id: Option<&SpiffeId>,
) -> Result<(Option<CallsStatus>, Option<Refusal>), Error> {
    let (identity, own) = (&observed.identity, Name::of(&*observed.identity));
    let Some(domain) = observed.trust_domain.clone().filter(|_| names_others(identity)) else {
        withdraw(controller, &own).await?;
        return Ok((None, None));
    };
    if domain.spec.tokens.is_none() || controller.settings.tokens_namespace.is_none() {
        withdraw(controller, &own).await?;
        return Ok((Some(none(identity, &own, &domain)), None));
    }
    let looked_up = {
        let (identity, identities, namespaces) =
            (identity.clone(), controller.handle.clone(), controller.namespaces.clone());
        // Each of very many may be large.
        elsewhere(move || look_up(&identity, &domain, &identities, &namespaces)).await
    };
    let status = describe_all(identity, &own, &looked_up);
    let caller = spiffe_id.map(|spiffe_id| CallerDocument {
        trust_domain: identity.spec.trust_domain.clone(),
        spiffe_id: spiffe_id.to_string(),
        callees: agreed(&status, &looked_up),
        users: looked_up.users,
        certificate_bound: identity
            .spec
            .authentication
            .signed_token
            .as_ref()
            .and_then(|it| it.certificate_bound)
            .unwrap_or_default(),
    });
    let caller = caller.filter(|_| identity.spec.authentication.signed_token.is_some());
    if controller.token_calls.record(&own, caller).await? {
        return Ok((Some(status), None));
    }
    let message = format!(
        "the identities of the namespace {} have more callees and scopes than a namespace may have; use fewer",
        own.namespace
    );
    Ok((Some(status), Some(Refusal::new(Reason::LimitExceeded, message))))
}

/// Takes its calls back from an identity.
///
/// # Errors
/// What the API server answered.
pub async fn withdraw(controller: &Controller, identity: &Name) -> Result<(), Error> {
    controller.token_calls.record(identity, None).await.map(|_| ())
}

/// The identities that an identity of the namespace `own` names, on either side.
pub fn peers(identity: &ServiceIdentity, own: &str) -> BTreeSet<Name> {
    let mut peers = named(callees(identity), own);
    peers.extend(named(&identity.spec.allowed_callers, own));
    peers
}

fn names_others(identity: &ServiceIdentity) -> bool {
    identity.spec.authentication.signed_token.is_some() || !identity.spec.allowed_callers.is_empty()
}

fn callees(identity: &ServiceIdentity) -> &[CallRule] {
    identity.spec.authentication.signed_token.as_ref().map(|token| token.callees.as_slice()).unwrap_or_default()
}

/// The calls of an identity whose trust domain issues no tokens.
fn none(identity: &ServiceIdentity, own: &Name, domain: &TrustDomain) -> CallsStatus {
    let name = domain.metadata.name.as_deref().unwrap_or_default();
    let message = format!("the TrustDomain {name} issues no tokens; ask for spec.tokens in it, and for a token issuer");
    let status = |other: Name| CallStatus {
        identity: other.to_string(),
        agreed: false,
        scopes: Vec::new(),
        message: Some(message.clone()),
    };
    CallsStatus {
        callees: named(callees(identity), &own.namespace).into_iter().map(status).collect(),
        callers: named(&identity.spec.allowed_callers, &own.namespace).into_iter().map(status).collect(),
        subject_issuers: Vec::new(),
    }
}

fn look_up(
    identity: &Arc<ServiceIdentity>,
    domain: &TrustDomain,
    identities: &Handle<ServiceIdentity>,
    namespaces: &Namespaces,
) -> Peers {
    let own = Name::of(&**identity);
    let find = |other: &Name, side: Side| -> Option<Peer> {
        let found = identities.store().get(Some(&other.namespace), &other.name)?;
        let selector = domain.spec.identity_namespace_selector.as_ref();
        let belongs = found.metadata.deletion_timestamp.is_none()
            && found.spec.trust_domain == identity.spec.trust_domain
            && selector.is_none_or(|selector| selector::matches(selector, &namespaces.labels(&other.namespace)));
        if !belongs {
            return None;
        }
        let theirs = match side {
            Side::Caller => &found.spec.allowed_callers,
            Side::Callee => callees(&found),
        };
        let spiffe_id = SpiffeId::new(&domain.spec.domain, &other.namespace, found.service_account()).ok()?;
        Some(Peer { spiffe_id: spiffe_id.to_string(), scopes: scopes(theirs, &other.namespace, &own) })
    };
    let all = |names: BTreeSet<Name>, side| -> BTreeMap<Name, Option<Peer>> {
        names.into_iter().map(|name| (name.clone(), find(&name, side))).collect()
    };
    Peers {
        callees: all(named(callees(identity), &own.namespace), Side::Caller),
        callers: all(named(&identity.spec.allowed_callers, &own.namespace), Side::Callee),
        users: if identity.spec.authentication.signed_token.is_some() {
            users(&domain.spec.subject_issuers, &namespaces.labels(&own.namespace), &own)
        } else {
            BTreeMap::new()
        },
    }
}

fn describe_all(identity: &ServiceIdentity, own: &Name, peers: &Peers) -> CallsStatus {
    let status = |rules, side, peers: &BTreeMap<Name, Option<Peer>>| -> Vec<CallStatus> {
        let describe = |(other, peer): (&Name, &Option<Peer>)| {
            describe(side, other, &scopes(rules, &own.namespace, other).unwrap_or_default(), peer.as_ref())
        };
        peers.iter().map(describe).collect()
    };
    CallsStatus {
        callees: status(callees(identity), Side::Caller, &peers.callees),
        callers: status(&identity.spec.allowed_callers, Side::Callee, &peers.callers),
        subject_issuers: peers.users.keys().cloned().collect(),
    }
}

/// The scopes of each service that both sides agree on, by its SPIFFE ID.
fn agreed(status: &CallsStatus, peers: &Peers) -> BTreeMap<String, BTreeSet<String>> {
    let callees = peers.callees.values().zip(&status.callees).filter(|(_, call)| call.agreed);
    callees
        .filter_map(|(peer, call)| Some((peer.as_ref()?.spiffe_id.clone(), call.scopes.iter().cloned().collect())))
        .collect()
}

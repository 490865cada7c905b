//! Whom a service acts for: a user that an identity provider names, or whoever a token names that was issued here. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::key_sets::{Fetched, Keys};
use super::outcome::Reason;
use crate::contract::tokens::{CallerDocument, KeySetUrl, SubjectIssuerDocument, SubjectKeysDocument};
use crate::domain::invalid_field::InvalidField;
use crate::domain::tenant_pattern::{InvalidPattern, TenantPattern};
use crate::edge::jose::{Audience, InvalidKeySet, KeySet, Members, Times, TokenError, UnverifiedToken};

/// The longest name of a user, in bytes (`OpenID Connect Core` 1.0 section 2).
const MAX_SUBJECT: usize = 255;
/// For how long a token that names somebody may be valid at most.
const MAX_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// How far the clock of an issuer may be ahead.
const AHEAD: SignedDuration = SignedDuration::from_mins(1);
/// How many keys a token may be tried with, because it names none of them: each costs time that others wait for.
const MAX_CANDIDATES: usize = 4;
/// How many services may act for somebody, one through the other.
const MAX_ACTORS: usize = 8;
/// The type of access tokens that are issued here (RFC 9068 section 2.1).
pub const AT_JWT: &str = "at+jwt";
/// The types of tokens of identity providers that name a user. A logout token or a context token is none.
const OF_USERS: [&str; 2] = ["jwt", AT_JWT];

/// Whom a token is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// A user, as `<subject issuer>:<name>`, or the SPIFFE ID of a service.
    pub id: String,
    /// The tenant of the user.
    pub tenant: Option<String>,
    /// The services that act for it.
    pub actors: Actor,
    /// When the token ends that names it, in seconds since 1970.
    pub expires_at: i64,
}

/// A service that acts for somebody (RFC 8693 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its SPIFFE ID.
    pub sub: String,
    /// The service that acted before it, and called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

impl Actor {
    fn count(&self) -> usize {
        1 + self.act.as_ref().map_or(0, |act| act.count())
    }
}

/// Why an identity provider cannot be used. Nothing of its keys is repeated.
#[derive(Debug, Error)]
pub enum InvalidSubjectIssuer {
    /// Its keys cannot be used.
    #[error("keys: {0}")]
    Keys(#[from] InvalidKeySet),
    /// Where its keys are fetched cannot be used.
    #[error(transparent)]
    Url(#[from] InvalidField),
    /// The pattern of its tenants cannot be used.
    #[error("tenant.pattern: {0}")]
    Tenant(#[from] InvalidPattern),
}

impl InvalidSubjectIssuer {
    /// Whether keys that were given are the reason.
    #[must_use]
    pub fn is_of_keys(&self) -> bool {
        matches!(self, Self::Keys(_))
    }
}

/// An identity provider whose users services may act for.
pub struct SubjectIssuer {
    /// Its name within the trust domain.
    pub name: String,
    /// The claim `iss`.
    issuer: String,
    algorithms: BTreeSet<String>,
    subject_claim: String,
    /// The claim, and what it may be.
    tenant: Option<(String, TenantPattern)>,
    /// Its keys.
    pub keys: Keys,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// What is checked of a token of an identity provider, besides its times.
#[derive(Deserialize)]
struct Addressed {
    aud: Audience,
    /// Who may act for the subject (RFC 8693 section 4.4).
    may_act: Option<MayAct>,
    /// What has happened (RFC 8417): a token about an event, a logout for instance, says nothing about who is there.
    events: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct MayAct {
    sub: String,
}

/// What is read of an access token that was issued here.
#[derive(Deserialize)]
struct OwnClaims {
    sub: String,
    aud: String,
    tenant: Option<String>,
    act: Option<Actor>,
}

/// Whom a service acts for that shows this token: one of the issuer with this URL and these keys, or one of an identity provider.
///
/// # Errors
/// Why it may not.
pub fn verify(
    token: &str,
    caller: &CallerDocument,
    (url, keys): (&str, &KeySet),
    providers: &[SubjectIssuer],
    now: Timestamp,
) -> Result<Subject, Reason> {
    let token = UnverifiedToken::parse(token)?;
    let Issuer { iss } = token.claims()?;
    if iss == url {
        return issued_here(&token, caller, keys, now);
    }
    let provider = providers.iter().find(|provider| provider.issuer == iss).ok_or(Reason::SubjectUnknownIssuer)?;
    let audiences = caller.users.get(&provider.name).ok_or(Reason::SubjectUnknownIssuer)?;
    provider.verify(&token, caller, audiences, now)
}

/// Whom a service acts for that was called with this token: the services that act are one more.
fn issued_here(
    token: &UnverifiedToken<'_>,
    caller: &CallerDocument,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Subject, Reason> {
    if token.media_type().as_deref() != Some(AT_JWT) {
        return Err(Reason::SubjectMalformed);
    }
    if !token.is_signed_by(keys) {
        return Err(Reason::SubjectWrongSignature);
    }
    let times: Times = token.claims()?;
    times.check(MAX_LIFETIME, AHEAD, now)?;
    let OwnClaims { sub, aud, tenant, act } = token.claims()?;
    if aud != caller.spiffe_id {
        return Err(Reason::SubjectWrongAudience);
    }
    let actors = Actor { sub: caller.spiffe_id.clone(), act: act.map(Box::new) };
    if actors.count() > MAX_ACTORS {
        return Err(Reason::SubjectWrongClaims);
    }
    Ok(Subject { id: sub, tenant, actors, expires_at: times.exp })
}

impl SubjectIssuer {
    /// Compiles a document of the operator. `fetched` is called for keys that are fetched.
    ///
    /// # Errors
    /// [`InvalidSubjectIssuer`].
    pub fn compile(
        document: &SubjectIssuerDocument,
        fetched: impl FnOnce(&KeySetUrl) -> Result<Arc<Fetched>, InvalidField>,
    ) -> Result<Self, InvalidSubjectIssuer> {
        let tenant = match &document.tenant {
            Some(tenant) => Some((tenant.claim.clone(), TenantPattern::new(&tenant.pattern)?)),
            None => None,
        };
        Ok(Self {
            name: document.name.clone(),
            issuer: document.issuer.clone(),
            algorithms: document.algorithms.clone(),
            subject_claim: document.subject_claim.clone(),
            tenant,
            keys: match &document.keys {
                SubjectKeysDocument::Jwks(text) => Keys::Given(KeySet::parse(text.as_bytes())?),
                SubjectKeysDocument::Url(source) => Keys::Fetched(fetched(source)?),
            },
        })
    }

    /// The user that a token names, for a service that may act for users whose tokens have one of these audiences.
    fn verify(
        &self,
        token: &UnverifiedToken<'_>,
        caller: &CallerDocument,
        audiences: &BTreeSet<String>,
        now: Timestamp,
    ) -> Result<Subject, Reason> {
        if token.media_type().is_some_and(|media_type| !OF_USERS.contains(&media_type.as_str())) {
            return Err(Reason::SubjectMalformed);
        }
        let is_signed = self
            .keys
            .verify(token.key_id(), |keys| token.candidates(keys) <= MAX_CANDIDATES && token.is_signed_by(keys));
        if !self.algorithms.contains(token.algorithm()) || !is_signed.ok_or(Reason::SubjectKeysMissing)? {
            return Err(Reason::SubjectWrongSignature);
        }
        let times: Times = token.claims()?;
        times.check(MAX_LIFETIME, AHEAD, now)?;
        let Addressed { aud, may_act, events } = token.claims()?;
        if !aud.is_for(|aud| aud == caller.spiffe_id || audiences.contains(aud)) {
            return Err(Reason::SubjectWrongAudience);
        }
        if events.is_some() || may_act.is_some_and(|may_act| may_act.sub != caller.spiffe_id) {
            return Err(Reason::SubjectWrongClaims);
        }
        let claims: Members = token.claims()?;
        let names_somebody =
            |name: &&str| (1..=MAX_SUBJECT).contains(&name.len()) && !name.chars().any(char::is_control);
        let user = claims.text(&self.subject_claim).filter(names_somebody).ok_or(Reason::SubjectWrongClaims)?;
        let tenant = match &self.tenant {
            None => None,
            Some((claim, pattern)) => {
                let tenant = claims.text(claim).filter(|tenant| pattern.matches(tenant));
                Some(tenant.ok_or(Reason::SubjectWrongClaims)?.to_owned())
            }
        };
        let actors = Actor { sub: caller.spiffe_id.clone(), act: None };
        Ok(Subject { id: format!("{}:{user}", self.name), tenant, actors, expires_at: times.exp })
    }
}

impl From<TokenError> for Reason {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::SubjectMalformed,
            TokenError::WrongAlgorithm => Self::SubjectWrongSignature,
            TokenError::WrongClaims => Self::SubjectWrongClaims,
            TokenError::Expired => Self::SubjectExpired,
            TokenError::NotYetValid => Self::SubjectNotYetValid,
        }
    }
}

#[cfg(test)]
mod tests;

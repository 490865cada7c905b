//! The issuer of a trust domain: its keys, and the document that the token issuer serves.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use super::controller::Controller;
use super::observe::Observed;
use super::subject_issuers::SubjectIssuers;
use crate::api::{Reason, Tokens, whole_seconds};
use crate::contract::component::Component;
use crate::contract::tokens::{ISSUER_ENTRY, IssuerDocument, SubjectKeysDocument, TokenKeyDocument};
use crate::controllers::shared::authorities::ActiveAuthority;
use crate::controllers::shared::material::TokenFacts;
use crate::domain::identity::digest;
use crate::domain::refusal::Refusal;
use crate::domain::schedule::duration;
use crate::domain::secret::SecretText;
use crate::domain::token_keys::{Decision, Rules, TokenKey, Wait, decide};
use crate::issuers::token_key;
use crate::kubernetes::error::Error;
use crate::kubernetes::{kept_metadata, uid};

/// How long an access token is valid, unless the trust domain says otherwise.
const LIFETIME: SignedDuration = SignedDuration::from_mins(5);
/// For how long a key is published before it signs, unless the trust domain says otherwise.
const PUBLISH_FOR: SignedDuration = SignedDuration::from_hours(24);
/// Version of the form of the document. It is part of its digest.
const FORMAT: &str = "1";

/// The keys of an issuer, and what their rotation waits for.
pub struct KeySet {
    /// The keys, the one that signs first.
    pub keys: Vec<TokenKey>,
    /// What a rotation that is due waits for.
    pub waits: Option<Wait>,
    /// When to look again.
    pub until: Option<Timestamp>,
    /// The identity providers whose users services may act for.
    pub subject_issuers: SubjectIssuers,
}

/// The keys of an issuer, or why there is none; `None` when the trust domain asks for none.
pub type Issuer = Option<Result<KeySet, Refusal>>;

/// Brings the document of the issuer to what the spec says.
///
/// # Errors
/// What the API server answered.
pub async fn provide(
    controller: &Controller,
    observed: &Observed,
    authority: &ActiveAuthority,
) -> Result<Issuer, Error> {
    let owner = uid(&*observed.domain);
    let secret = format!("issuer.{}", observed.name());
    let Some(tokens) = &observed.domain.spec.tokens else {
        if let Some(namespace) = &controller.settings.tokens_namespace {
            controller.token_secrets.delete(namespace, &secret, Some(&owner)).await?;
        }
        return Ok(None);
    };
    let Some(namespace) = controller.settings.tokens_namespace.as_deref() else {
        let message =
            "no token issuer is installed; set tokens.enabled in the values of the chart, or remove spec.tokens";
        return Ok(Some(Err(Refusal::new(Reason::TokensNotInstalled, message))));
    };
    if let Some(holder) = &observed.issuer_holder {
        let message = format!("the issuer {} belongs to the {holder} already; use another URL", tokens.issuer);
        return Ok(Some(Err(Refusal::new(Reason::Conflict, message))));
    }
    let known = controller.token_secrets.get(namespace, &secret).and_then(|record| record.facts.clone().ok());
    let facts = known.clone().unwrap_or_default();
    let rules = Rules {
        rotation: &observed.rotation.rules,
        publish_for: read("tokens.publishFor", tokens.publish_for.as_deref(), PUBLISH_FOR)?,
        tainted: &tokens.tainted_keys,
    };
    let is_served = controller.issuer_replicas.all_serve(&owner, &facts.digest);
    let now = whole_seconds(observed.now);
    let Decision { mut keys, make, waits, until } = decide(&rules, &facts.keys, is_served, now);
    let subject_issuers = SubjectIssuers::read(controller, &observed.domain).await?;
    let wanted = wanted(observed, tokens, authority, &subject_issuers)?;
    if make == 0 && known.is_some_and(|facts| facts.digest == digest_of(&wanted, &authority.signer.bundle_hash, &keys))
    {
        return Ok(Some(Ok(KeySet { keys, waits, until, subject_issuers })));
    }
    let stored = stored(controller, namespace, &secret).await?;
    let bundle_sequence = sequence(stored.as_ref(), &wanted, now);
    let stored = stored.into_iter().flat_map(|document| document.keys);
    let mut material: BTreeMap<String, SecretText> = stored.map(|key| (key.id, key.key)).collect();
    // What somebody else has changed or lost is replaced.
    keys.retain(|key| material.contains_key(&key.id));
    let Decision { mut keys, make, waits, until } = decide(&rules, &keys, is_served, now);
    for _ in 0..make {
        let (id, key) = token_key::make()?;
        keys.push(TokenKey::new(id.clone(), now));
        material.insert(id, key);
    }
    // The first key of all signs at once: nobody can have read the key set before.
    if let Some(first) = keys.first_mut() {
        first.signs_since.get_or_insert(now);
    }
    keys.sort_by_key(TokenKey::order);
    let facts = TokenFacts { digest: digest_of(&wanted, &authority.signer.bundle_hash, &keys), keys };
    let document = |key: &TokenKey| Some(TokenKeyDocument { id: key.id.clone(), key: material.get(&key.id)?.clone() });
    let keys = facts.keys.iter().filter_map(document).collect();
    let document = IssuerDocument { digest: facts.digest.clone(), bundle_sequence, keys, ..wanted };
    let text = Zeroizing::new(serde_json::to_vec(&document).map_err(|error| Error::Bug(error.to_string()))?);
    let component = Component::TokenIssuer;
    let object = Secret {
        metadata: kept_metadata(&*observed.domain, namespace, &secret, component, facts.annotations()?),
        data: Some(BTreeMap::from([(ISSUER_ENTRY.to_owned(), ByteString(text.to_vec()))])),
        ..Secret::default()
    };
    controller.token_secrets.put(&object).await?;
    let signs = facts.keys.first().map(|key| key.id.as_str()).unwrap_or_default();
    tracing::info!(trust_domain = observed.name(), issuer = document.issuer, signs, "issuer stored");
    Ok(Some(Ok(KeySet { keys: facts.keys, waits, until, subject_issuers })))
}

/// A duration of the spec, whose form the API server has checked.
fn read(field: &str, text: Option<&str>, default: SignedDuration) -> Result<SignedDuration, Error> {
    duration(field, text, default).map_err(|error| Error::Bug(error.to_string()))
}

/// The document that the spec asks for, without keys.
fn wanted(
    observed: &Observed,
    tokens: &Tokens,
    authority: &ActiveAuthority,
    subject_issuers: &SubjectIssuers,
) -> Result<IssuerDocument, Error> {
    let lifetime = read("tokens.accessTokenLifetime", tokens.access_token_lifetime.as_deref(), LIFETIME)?;
    Ok(IssuerDocument {
        trust_domain: observed.name().to_owned(),
        uid: uid(&*observed.domain),
        generation: observed.domain.metadata.generation.unwrap_or_default(),
        digest: String::new(),
        issuer: tokens.issuer.clone(),
        access_token_seconds: u32::try_from(lifetime.as_secs()).map_err(|error| Error::Bug(error.to_string()))?,
        bundle: authority.signer.bundle_pem.clone(),
        bundle_sequence: 0,
        keys: Vec::new(),
        subject_issuers: subject_issuers.documents.clone(),
    })
}

/// A digest of everything that the issuer has to know; of a key its ID and its place.
fn digest_of(document: &IssuerDocument, bundle_hash: &str, keys: &[TokenKey]) -> String {
    let (generation, seconds) = (document.generation.to_string(), document.access_token_seconds.to_string());
    let parts = [FORMAT, &document.uid, &generation, &document.issuer, &seconds, bundle_hash].into_iter();
    // What the spec says of them is in its generation.
    let providers = document.subject_issuers.iter().flat_map(|it| match &it.keys {
        SubjectKeysDocument::Jwks(jwks) => [it.name.as_str(), jwks],
        SubjectKeysDocument::Url(source) => [it.name.as_str(), &source.url],
    });
    digest(parts.chain(providers).chain(keys.iter().map(|key| key.id.as_str())))
}

/// The number of the bundle: the time since when it is this one, in seconds since 1970, so that it grows even when the Secret is lost.
fn sequence(stored: Option<&IssuerDocument>, wanted: &IssuerDocument, now: Timestamp) -> u64 {
    match stored {
        Some(stored) if stored.bundle == wanted.bundle && stored.bundle_sequence > 0 => stored.bundle_sequence,
        stored => {
            let before = stored.map_or(0, |stored| stored.bundle_sequence);
            u64::try_from(now.as_second()).unwrap_or_default().max(before + 1)
        }
    }
}

/// The document that is stored, if it can be read.
async fn stored(controller: &Controller, namespace: &str, secret: &str) -> Result<Option<IssuerDocument>, Error> {
    if controller.token_secrets.get(namespace, secret).is_none() {
        return Ok(None);
    }
    let read = |secret: Secret| {
        let entry = secret.data.and_then(|mut data| data.remove(ISSUER_ENTRY))?;
        serde_json::from_slice::<IssuerDocument>(&Zeroizing::new(entry.0)).ok()
    };
    Ok(controller.token_secrets.read_as(namespace, secret, read).await?.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(bundle: &str, bundle_sequence: u64) -> IssuerDocument {
        IssuerDocument {
            trust_domain: "demo".into(),
            uid: "u1".into(),
            generation: 1,
            digest: String::new(),
            issuer: "https://tokens.example".into(),
            access_token_seconds: 300,
            bundle: bundle.into(),
            bundle_sequence,
            keys: Vec::new(),
            subject_issuers: Vec::new(),
        }
    }

    #[test]
    fn the_number_of_a_bundle_grows_with_every_change_only() {
        let at = |stored: Option<(&str, u64)>, second: i64| {
            let stored = stored.map(|(bundle, number)| document(bundle, number));
            sequence(stored.as_ref(), &document("new", 0), Timestamp::from_second(second).unwrap())
        };
        assert_eq!(at(Some(("new", 1_000)), 2_000), 1_000, "the same bundle");
        assert_eq!(at(Some(("old", 1_000)), 2_000), 2_000, "another bundle");
        assert_eq!(at(Some(("old", 1_000)), 1_000), 1_001, "another bundle in the same second");
        assert_eq!(at(Some(("old", 1_000)), 500), 1_001, "another bundle after the clock was set back");
        assert_eq!(at(None, 2_000), 2_000, "the first one, or a Secret that was lost");
        assert_eq!(at(Some(("new", 0)), 2_000), 2_000, "stored without a number");
    }
}

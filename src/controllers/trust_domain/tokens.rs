//! The issuer of a trust domain: its keys, and the document that the token issuer serves.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use zeroize::Zeroizing;

use super::controller::Controller;
use super::observe::Observed;
use crate::api::{Reason, TokenKeyPhase, TokenKeyStatus, Tokens, whole_seconds};
use crate::contract::component::Component;
use crate::contract::tokens::{ISSUER_ENTRY, IssuerDocument, TokenKeyDocument};
use crate::controllers::shared::authorities::ActiveAuthority;
use crate::controllers::shared::material::{TokenFacts, TokenKeyRecord};
use crate::domain::identity::digest;
use crate::domain::refusal::Refusal;
use crate::domain::schedule::duration;
use crate::issuers::token_key;
use crate::kubernetes::error::Error;
use crate::kubernetes::{kept_metadata, uid};

/// How long an access token is valid, unless the trust domain says otherwise.
const LIFETIME: SignedDuration = SignedDuration::from_mins(5);
/// How many keys there are: the one that signs, and the next one, which is published from the beginning.
const KEYS: usize = 2;
/// Version of the form of the document. It is part of its digest.
const FORMAT: &str = "1";

/// The keys of an issuer, or why there is none; `None` when the trust domain asks for none.
pub type Issuer = Option<Result<Vec<TokenKeyStatus>, Refusal>>;

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
    let wanted = Wanted::new(observed, tokens, authority)?;
    let known = controller.token_secrets.get(namespace, &secret).and_then(|record| record.facts.clone().ok());
    if let Some(facts) = known.filter(|facts| facts.keys.len() == KEYS && facts.digest == wanted.digest(&facts.keys)) {
        return Ok(Some(Ok(describe(&facts.keys))));
    }
    let keys = complete(stored(controller, namespace, &secret).await?, observed.now)?;
    let records: Vec<TokenKeyRecord> = keys.iter().map(record).collect();
    let facts = TokenFacts { digest: wanted.digest(&records), keys: records };
    let document = IssuerDocument { keys, ..wanted.document };
    let text = Zeroizing::new(serde_json::to_vec(&document).map_err(|error| Error::Bug(error.to_string()))?);
    let component = Component::TokenIssuer;
    let object = Secret {
        metadata: kept_metadata(&*observed.domain, namespace, &secret, component, facts.annotations()?),
        data: Some(BTreeMap::from([(ISSUER_ENTRY.to_owned(), ByteString(text.to_vec()))])),
        ..Secret::default()
    };
    controller.token_secrets.put(&object).await?;
    tracing::info!(trust_domain = observed.name(), issuer = document.issuer, "issuer stored");
    Ok(Some(Ok(describe(&facts.keys))))
}

/// The document that the spec asks for, without keys.
struct Wanted {
    document: IssuerDocument,
    bundle_hash: String,
}

impl Wanted {
    fn new(observed: &Observed, tokens: &Tokens, authority: &ActiveAuthority) -> Result<Self, Error> {
        let lifetime = duration("tokens.accessTokenLifetime", tokens.access_token_lifetime.as_deref(), LIFETIME);
        // The API server has checked its form.
        let seconds = lifetime.map_err(|error| Error::Bug(error.to_string()))?.as_secs();
        let document = IssuerDocument {
            trust_domain: observed.name().to_owned(),
            issuer: tokens.issuer.clone(),
            access_token_seconds: u32::try_from(seconds).map_err(|error| Error::Bug(error.to_string()))?,
            bundle: authority.signer.bundle_pem.clone(),
            keys: Vec::new(),
        };
        Ok(Self { document, bundle_hash: authority.signer.bundle_hash.clone() })
    }

    fn digest(&self, keys: &[TokenKeyRecord]) -> String {
        let IssuerDocument { issuer, access_token_seconds, .. } = &self.document;
        let seconds = access_token_seconds.to_string();
        let parts = [FORMAT, issuer, &seconds, &self.bundle_hash].into_iter();
        digest(parts.chain(keys.iter().map(|key| key.id.as_str())))
    }
}

/// The keys that are stored, as far as they can be read.
async fn stored(controller: &Controller, namespace: &str, secret: &str) -> Result<Vec<TokenKeyDocument>, Error> {
    if controller.token_secrets.get(namespace, secret).is_none() {
        return Ok(Vec::new());
    }
    let read = |secret: Secret| {
        let entry = secret.data.and_then(|mut data| data.remove(ISSUER_ENTRY))?;
        serde_json::from_slice::<IssuerDocument>(&Zeroizing::new(entry.0)).ok()
    };
    let found = controller.token_secrets.read_as(namespace, secret, read).await?.flatten();
    Ok(found.map(|document| document.keys).unwrap_or_default())
}

/// Adds the keys that are missing. The first key of all signs at once: nobody can have read the key set before.
fn complete(mut keys: Vec<TokenKeyDocument>, now: Timestamp) -> Result<Vec<TokenKeyDocument>, Error> {
    let now = whole_seconds(now);
    while keys.len() < KEYS {
        let (id, key) = token_key::make()?;
        keys.push(TokenKeyDocument { id, key, signs_since: None, published_since: now });
    }
    keys[0].signs_since.get_or_insert(now);
    Ok(keys)
}

fn record(key: &TokenKeyDocument) -> TokenKeyRecord {
    TokenKeyRecord { id: key.id.clone(), signs_since: key.signs_since, published_since: key.published_since }
}

fn describe(keys: &[TokenKeyRecord]) -> Vec<TokenKeyStatus> {
    let status = |key: &TokenKeyRecord| match key.signs_since {
        Some(since) => TokenKeyStatus { id: key.id.clone(), phase: TokenKeyPhase::Active, since: Time(since) },
        None => TokenKeyStatus { id: key.id.clone(), phase: TokenKeyPhase::Prepared, since: Time(key.published_since) },
    };
    keys.iter().map(status).collect()
}

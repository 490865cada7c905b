//! The identity providers whose users services may act for: their keys are read from Secrets of the operator's namespace, or fetched by
//! the token issuer, which reports when it cannot.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use super::controller::Controller;
use crate::api::{Reason, SubjectAlgorithm, SubjectIssuer, SubjectIssuerStatus, SubjectKeys, TrustDomain};
use crate::contract::report::{KeySetReport, ServedRoute};
use crate::contract::tokens::{KeySetUrl, MAX_KEY_SET, SubjectIssuerDocument, SubjectKeysDocument, TenantDocument};
use crate::domain::address_policy::AddressPolicy;
use crate::domain::refusal::Refusal;
use crate::domain::tenant_pattern;
use crate::edge::tokens::{Fetched, SubjectIssuer as Compiled};
use crate::kubernetes::error::Error;
use crate::kubernetes::uid;

/// The entry of a Secret with the keys of a provider.
const ENTRY: &str = "jwks.json";
/// The algorithms of tokens, unless the trust domain says otherwise.
const ALGORITHMS: [SubjectAlgorithm; 2] = [SubjectAlgorithm::Es256, SubjectAlgorithm::Rs256];

/// The identity providers of a trust domain.
#[derive(Default)]
pub struct SubjectIssuers {
    /// The documents for the token issuer, of the providers whose keys can be used.
    pub documents: Vec<SubjectIssuerDocument>,
    /// What is wrong with a provider, by its name.
    pub problems: BTreeMap<String, Problem>,
}

/// What is wrong with a provider.
pub struct Problem {
    /// Why its users are refused, or will be once the cached keys are too old.
    pub refusal: Refusal,
    /// Whether its users are accepted nevertheless.
    pub is_usable: bool,
}

impl SubjectIssuers {
    /// Reads the keys of all of them, and what the replicas of the token issuer report.
    ///
    /// # Errors
    /// What the API server answered.
    pub async fn read(controller: &Controller, domain: &TrustDomain) -> Result<Self, Error> {
        let mut all = Self::default();
        let serving = controller.issuer_replicas.serving(&uid(domain));
        for issuer in &domain.spec.subject_issuers {
            let found = keys(controller, issuer).await?;
            let problem = match found.and_then(|keys| document(issuer, keys)) {
                Ok(document) => {
                    all.documents.push(document);
                    reported(issuer, &serving)
                }
                Err(refusal) => Some(Problem { refusal, is_usable: false }),
            };
            all.problems.extend(problem.map(|problem| (issuer.name.clone(), problem)));
        }
        Ok(all)
    }

    /// Each as status shows it, in the order of the spec.
    pub fn describe(&self, domain: &TrustDomain) -> Vec<SubjectIssuerStatus> {
        let describe = |issuer: &SubjectIssuer| {
            let problem = self.problems.get(&issuer.name);
            SubjectIssuerStatus {
                name: issuer.name.clone(),
                usable: problem.is_none_or(|problem| problem.is_usable),
                message: problem.map(|problem| problem.refusal.message.clone()),
            }
        };
        domain.spec.subject_issuers.iter().map(describe).collect()
    }
}

/// The keys of a provider, or where they are.
async fn keys(controller: &Controller, issuer: &SubjectIssuer) -> Result<Result<SubjectKeysDocument, Refusal>, Error> {
    let SubjectKeys { secret_ref, url, ca_bundle } = issuer.keys.clone();
    let Some(secret) = secret_ref else {
        let source = KeySetUrl { url: url.unwrap_or_default(), ca_bundle };
        return Ok(Ok(SubjectKeysDocument::Url(source)));
    };
    let found = controller.certificates.read(&controller.settings.namespace, &secret.name).await?;
    let keys = jwks(found).map_err(|problem| in_secret(issuer, &secret.name, problem));
    Ok(keys.map(SubjectKeysDocument::Jwks))
}

fn in_secret(issuer: &SubjectIssuer, secret: &str, problem: impl std::fmt::Display) -> Refusal {
    let message = format!("{}: the Secret {secret} of the operator's namespace {problem}", issuer.name);
    Refusal::new(Reason::KeysInvalid, message)
}

fn jwks(secret: Option<Secret>) -> Result<String, &'static str> {
    let secret = secret.ok_or("does not exist; create it, with the provider's JWK Set as jwks.json")?;
    let entry = secret.data.and_then(|mut data| data.remove(ENTRY));
    let entry = entry.ok_or("has no jwks.json; add the provider's JWK Set")?;
    if entry.0.len() > MAX_KEY_SET {
        return Err("has a jwks.json of more than 32 KiB; leave out certificates, and keys that are not used");
    }
    String::from_utf8(entry.0).map_err(|_| "has a jwks.json that is not text")
}

/// What the token issuer has to know of a provider with these keys.
fn document(issuer: &SubjectIssuer, keys: SubjectKeysDocument) -> Result<SubjectIssuerDocument, Refusal> {
    let algorithms = if issuer.algorithms.is_empty() { &ALGORITHMS } else { issuer.algorithms.as_slice() };
    let tenant = issuer.tenant.as_ref().map(|tenant| TenantDocument {
        claim: tenant.claim.clone(),
        pattern: tenant.pattern.clone().unwrap_or_else(|| tenant_pattern::DEFAULT.to_owned()),
    });
    let document = SubjectIssuerDocument {
        name: issuer.name.clone(),
        issuer: issuer.issuer.clone(),
        algorithms: algorithms.iter().map(|algorithm| algorithm.as_str().to_owned()).collect(),
        subject_claim: issuer.subject_claim.clone().unwrap_or_else(|| "sub".to_owned()),
        tenant,
        keys,
    };
    let fetched = |source: &KeySetUrl| Fetched::new(source, &AddressPolicy::trusted(None)).map(Arc::new);
    match Compiled::compile(&document, fetched) {
        Ok(_) => Ok(document),
        Err(error) => Err(match &issuer.keys.secret_ref {
            Some(secret) if error.is_of_keys() => in_secret(issuer, &secret.name, format!("cannot be used: {error}")),
            _ => Refusal::new(Reason::InvalidSpec, format!("{}: {error}", issuer.name)),
        }),
    }
}

/// What a replica of the token issuer reports of the keys that it fetches; first, where it has none.
fn reported(issuer: &SubjectIssuer, serving: &BTreeMap<String, Option<ServedRoute>>) -> Option<Problem> {
    let url = issuer.keys.url.as_ref()?;
    let reports = serving.iter().filter_map(|(replica, it)| Some((replica, it.as_ref()?.key_sets.get(&issuer.name)?)));
    let (replica, KeySetReport { problem, cached }) = reports.min_by_key(|(_, report)| report.cached)?;
    let meanwhile = if *cached { "using the cached keys" } else { "its users are refused" };
    let problem = problem.describe();
    let message =
        format!("{}: {replica} cannot fetch the key set {url}: {problem}; {meanwhile}, retrying", issuer.name);
    Some(Problem { refusal: Refusal::new(Reason::KeysNotFetched, message), is_usable: *cached })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::contract::report::FetchProblem;
    use crate::edge::jose::testing;

    fn issuer() -> SubjectIssuer {
        serde_json::from_value(json!({
            "name": "customers", "issuer": "https://login.example", "namespaceSelector": {},
            "tenant": {"claim": "org"}, "keys": {"secretRef": {"name": "login-keys"}},
        }))
        .unwrap()
    }

    fn secret(entry: &str, text: impl Into<Vec<u8>>) -> Secret {
        let data = Some(BTreeMap::from([(entry.to_owned(), ByteString(text.into()))]));
        Secret { data, ..Secret::default() }
    }

    #[test]
    fn what_the_spec_leaves_out_is_filled_in() {
        let document = document(&issuer(), SubjectKeysDocument::Jwks(testing::Issuer::new(1).jwks())).unwrap();
        assert_eq!(document.algorithms, ["ES256", "RS256"].map(ToOwned::to_owned).into());
        assert_eq!(document.subject_claim, "sub");
        assert_eq!(document.tenant.unwrap().pattern, tenant_pattern::DEFAULT);
    }

    #[test]
    fn keys_that_cannot_be_used_are_told_and_not_repeated() {
        assert!(jwks(None).unwrap_err().contains("does not exist"));
        assert!(jwks(Some(secret("other", "{}"))).unwrap_err().contains("no jwks.json"));
        assert!(jwks(Some(secret(ENTRY, vec![b' '; MAX_KEY_SET + 1]))).unwrap_err().contains("32 KiB"));
        assert!(jwks(Some(secret(ENTRY, [0xff]))).unwrap_err().contains("not text"));
        for broken in ["s3cret", r#"{"keys":[{"kty":"oct","k":"s3cret"}]}"#, r#"{"keys":[]}"#] {
            let Refusal { reason, message } =
                document(&issuer(), SubjectKeysDocument::Jwks(broken.to_owned())).unwrap_err();
            assert!(reason == Reason::KeysInvalid && !message.contains("s3cret"), "{message}");
            assert!(message.starts_with("customers: the Secret login-keys of the operator's namespace"), "{message}");
        }
        let mut wrong = issuer();
        wrong.tenant.as_mut().unwrap().pattern = Some("(".into());
        let keys = SubjectKeysDocument::Jwks(testing::Issuer::new(1).jwks());
        let refused = document(&wrong, keys).unwrap_err();
        assert!(refused.reason == Reason::InvalidSpec && refused.message.starts_with("customers: tenant.pattern"));
    }

    #[test]
    fn a_replica_that_has_no_keys_is_told_first() {
        let serving = |cached: Option<bool>| {
            let report = cached.map(|cached| KeySetReport { problem: FetchProblem::WrongStatus, cached });
            let key_sets = report.into_iter().map(|report| ("customers".to_owned(), report)).collect();
            Some(ServedRoute { key_sets, ..ServedRoute::default() })
        };
        let of = |replicas: &[Option<bool>]| {
            let mut fetched = issuer();
            fetched.keys = serde_json::from_value(json!({"url": "https://login.example/keys"})).unwrap();
            let replicas =
                replicas.iter().zip(1..).map(|(cached, number)| (format!("tokens-{number}"), serving(*cached)));
            reported(&fetched, &replicas.collect())
        };
        assert!(of(&[]).is_none() && of(&[None, None]).is_none());
        let cached = of(&[None, Some(true)]).unwrap();
        let told = cached.refusal.message;
        assert!(cached.is_usable && told.contains("tokens-2") && told.contains("using the cached keys"), "{told}");
        let none = of(&[Some(true), Some(false)]).unwrap();
        assert!(!none.is_usable && none.refusal.message.contains("tokens-2"), "{}", none.refusal);
    }
}

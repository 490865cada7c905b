//! Makes, restores and loads the authority that the plan asks for.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::controller::Controller;
use super::observe::Observed;
use super::plan::{AuthorityPlan, fallback, is_known_authority, is_known_root};
use crate::api::{KeyAlgorithm, Reason, TrustDomain};
use crate::contract::component::Component;
use crate::controllers::shared::authorities::ActiveAuthority;
use crate::controllers::shared::material;
use crate::domain::refusal::Refusal;
use crate::domain::secret::SecretText;
use crate::issuers::self_signed::{AuthorityMaterial, make_intermediate, make_root};
use crate::issuers::{IssuerError, ca, pem};
use crate::kubernetes::error::Error;
use crate::kubernetes::kept_metadata;

/// An authority that signs, and the Secret that it is in.
pub struct Provided {
    pub authority: Arc<ActiveAuthority>,
    pub secret: String,
    /// What is wrong although it signs.
    pub remark: Option<String>,
}

/// Why there is no authority: because of something that a person has to change, or because of an error that may pass.
enum Failure {
    Refused(Refusal),
    Error(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        match error.into() {
            Error::Issuer(error) => Self::Refused(Refusal::new(Reason::IssuerSecretInvalid, error.to_string())),
            error => error.into_refusal().map_or_else(Self::Error, Self::Refused),
        }
    }
}

/// Provides the authority, or says why it cannot be used.
///
/// # Errors
/// What the API server answered.
pub async fn provide(
    controller: &Controller,
    observed: &Observed,
    plan: &AuthorityPlan,
) -> Result<Result<Provided, Refusal>, Error> {
    let provided = match (obtain(controller, observed, plan).await, fallback(plan)) {
        (Err(Failure::Refused(refusal)), Some(before)) => {
            // The intermediate before still signs; what is wrong with the root has to be corrected before it expires.
            let remark = Some(format!("its successor cannot be made: {refusal}"));
            obtain(controller, observed, &before).await.map(|provided| Provided { remark, ..provided })
        }
        (provided, _) => provided,
    };
    match provided {
        Ok(provided) => Ok(Ok(provided)),
        Err(Failure::Refused(refusal)) => Ok(Err(refusal)),
        Err(Failure::Error(error)) => Err(error),
    }
}

async fn obtain(controller: &Controller, observed: &Observed, plan: &AuthorityPlan) -> Result<Provided, Failure> {
    let generation = match plan {
        AuthorityPlan::Refuse(refusal) => return Err(Failure::Refused(refusal.clone())),
        AuthorityPlan::Bring { secret, source } => return load(controller, observed, secret, source).await,
        AuthorityPlan::Create => {
            create_root(controller, observed).await?;
            succeed(controller, observed, 1).await?;
            1
        }
        AuthorityPlan::Succeed(generation) => {
            succeed(controller, observed, *generation).await?;
            *generation
        }
        AuthorityPlan::Restore(generation) => {
            restore(controller, observed, *generation).await?;
            *generation
        }
        AuthorityPlan::Load(generation) => *generation,
    };
    let secret = observed.intermediate_secret(generation);
    // By its content: a Secret that was made anew has another key under the same name.
    let stored = controller.certificates.get(&controller.settings.namespace, &secret);
    let content = stored.and_then(|record| Some(format!("{} {}", record.uid, record.facts.as_ref().ok()?.fingerprint)));
    let generation = observed.domain.metadata.generation.unwrap_or(0);
    let source = format!("{secret} {} {generation}", content.unwrap_or_default());
    load(controller, observed, &secret, &source).await
}

/// Loads the authority of a Secret, unless it is loaded already.
async fn load(controller: &Controller, observed: &Observed, secret: &str, source: &str) -> Result<Provided, Failure> {
    let provided = |authority| Provided { authority, secret: secret.to_owned(), remark: None };
    if let Some(active) = controller.authorities.get(observed.name())
        && active.source == source
        && active.signer.not_after() > observed.now
    {
        return Ok(provided(active));
    }
    let namespace = &controller.settings.namespace;
    let Some(found) = controller.certificates.read(namespace, secret).await? else {
        let message = format!("the Secret {secret} does not exist in {namespace}");
        return Err(Failure::Refused(Refusal::new(Reason::IssuerSecretNotFound, message)));
    };
    let bundle = observed.domain.spec.bundle.as_ref();
    let roots = bundle.map(|bundle| bundle.additional_roots.as_slice()).unwrap_or_default();
    let mut signer = ca::load(&found.data.unwrap_or_default(), roots, observed.now)?;
    // Intermediates of one root trust each other's certificates.
    signer.trusted.extend(observed.intermediates.values().flatten().map(|known| known.fingerprint.clone()));
    let active = ActiveAuthority { signer, source: source.to_owned() };
    Ok(provided(controller.authorities.set(observed.name(), active)))
}

async fn create_root(controller: &Controller, observed: &Observed) -> Result<(), Error> {
    let root = make_root(&observed.domain.spec.domain, key_algorithm(&observed.domain), observed.now)?;
    let signer = Signer { pem: root.certificate_pem.clone(), fingerprint: root.certificate.fingerprint() };
    store(controller, observed, (&observed.root_secret(), Component::Root), &root, &signer).await
}

/// Makes the intermediate of a generation under the stored root.
async fn succeed(controller: &Controller, observed: &Observed, generation: u32) -> Result<(), Error> {
    let domain = &observed.domain;
    let root_secret = observed.root_secret();
    let found = controller.certificates.read(&controller.settings.namespace, &root_secret).await?;
    let entries = Entries { data: found.and_then(|root| root.data).unwrap_or_default(), secret: &root_secret };
    let root = entries.certificate("tls.crt")?;
    let signer = Signer::of(&root);
    if !is_known_root(observed, &signer.fingerprint) {
        let why = format!("the Secret {root_secret} does not hold the root of before; restore it from a backup");
        return Err(IssuerError::Invalid(why).into());
    }
    let (algorithm, now) = (key_algorithm(domain), observed.now);
    let made = make_intermediate(&domain.spec.domain, generation, algorithm, &root, &entries.key(), now)?;
    let secret = observed.intermediate_secret(generation);
    store(controller, observed, (&secret, Component::Intermediate), &made, &signer).await
}

/// Takes over the Secret of an intermediate that somebody else wrote, as a restore from a backup does. It must hold the
/// authority in status, and be able to sign; any other is left alone and not used.
async fn restore(controller: &Controller, observed: &Observed, generation: u32) -> Result<(), Failure> {
    let secret = observed.intermediate_secret(generation);
    let found = controller.certificates.read(&controller.settings.namespace, &secret).await?;
    let entries = Entries { data: found.and_then(|found| found.data).unwrap_or_default(), secret: &secret };
    let signs = ca::load(&entries.data, &[], observed.now).ok();
    if !signs.is_some_and(|signer| is_known_authority(observed, &secret, &signer.fingerprint())) {
        let message = format!(
            "the Secret {secret} was changed by another writer and does not hold the authority of before; nothing is \
             signed with it. Restore it from a backup"
        );
        return Err(Failure::Refused(Refusal::new(Reason::AuthorityAltered, message)));
    }
    let certificate = entries.certificate("tls.crt")?;
    let signer = Signer::of(&entries.certificate("ca.crt")?);
    let certificate_pem = pem::encode(&certificate.der);
    let made = AuthorityMaterial { certificate_pem, key: entries.key(), certificate };
    Ok(store(controller, observed, (&secret, Component::Intermediate), &made, &signer).await?)
}

/// The content of a Secret with an authority.
struct Entries<'a> {
    data: std::collections::BTreeMap<String, ByteString>,
    secret: &'a str,
}

impl Entries<'_> {
    fn bytes(&self, entry: &str) -> &[u8] {
        self.data.get(entry).map(|value| value.0.as_slice()).unwrap_or_default()
    }

    fn certificate(&self, entry: &str) -> Result<pem::Certificate, Error> {
        let found = pem::certificates(self.bytes(entry), &format!("{entry} of the Secret {}", self.secret))?;
        found.into_iter().next().ok_or_else(|| Error::Bug("a list without a first entry".into()))
    }

    fn key(&self) -> SecretText {
        SecretText::new(String::from_utf8_lossy(self.bytes("tls.key")).into_owned())
    }
}

/// The certificate above a stored one.
struct Signer {
    pem: String,
    fingerprint: String,
}

impl Signer {
    fn of(certificate: &pem::Certificate) -> Self {
        Self { pem: pem::encode(&certificate.der), fingerprint: certificate.fingerprint() }
    }
}

async fn store(
    controller: &Controller,
    observed: &Observed,
    (secret, component): (&str, Component),
    made: &AuthorityMaterial,
    signer: &Signer,
) -> Result<(), Error> {
    let facts = material::describe(&made.certificate, observed.now, &signer.fingerprint, "", "");
    let data =
        [("tls.crt", made.certificate_pem.as_str()), ("tls.key", made.key.expose()), ("ca.crt", signer.pem.as_str())];
    let (domain, namespace) = (&*observed.domain, &controller.settings.namespace);
    let secret = Secret {
        metadata: kept_metadata(domain, namespace, secret, component, material::annotations(&facts)),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into()))).collect()),
        ..Secret::default()
    };
    controller.certificates.put(&secret).await
}

fn key_algorithm(domain: &TrustDomain) -> KeyAlgorithm {
    domain.spec.issuer.self_signed.as_ref().and_then(|issuer| issuer.key_algorithm).unwrap_or_default()
}

//! Looks up what a trust domain depends on. Reads stores only; nothing is decided and nothing written here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::controller::Controller;
use crate::api::{RotationTargetKind, TrustDomain, TrustDomainStatus};
use crate::contract::component::Component;
use crate::controllers::shared::claims::{NameClaim, Scope};
use crate::controllers::shared::kind::IndexKey;
use crate::domain::altered::AlteredBy;
use crate::domain::in_effect::{InEffect, in_effect};
use crate::domain::key_set::KeyRotation;
use crate::domain::name::{Name, ObjectRef};
use crate::domain::rotation::Material;
use crate::domain::selector;
use crate::kubernetes::uid;

/// Everything that the plan depends on.
pub struct Observed {
    pub domain: Arc<TrustDomain>,
    /// Its status as it was written last.
    pub status: TrustDomainStatus,
    /// The facts about the Secret of the root; the inner value is absent when somebody else changed the Secret.
    #[allow(clippy::option_option, reason = "a missing Secret and a changed one are different cases")]
    pub root: Option<Option<Material>>,
    /// The same of every intermediate, by generation.
    pub intermediates: BTreeMap<u32, Option<Material>>,
    /// Resource version of the Secret that `spec.issuer.ca` names.
    pub ca_version: Option<String>,
    /// Namespaces that are to have the bundle.
    pub selected: BTreeSet<String>,
    /// Namespaces that have a bundle of ours: its digest, or the field manager that changed it.
    pub published: BTreeMap<String, Result<String, AlteredBy>>,
    /// Objects of this trust domain that still hang on an owner reference, so that they would go with it at once.
    pub hanging: Hanging,
    /// Another trust domain that has the same domain.
    pub domain_holder: Option<ObjectRef>,
    /// Another trust domain that has the same issuer of tokens.
    pub issuer_holder: Option<ObjectRef>,
    /// When the keys of its issuer are rotated.
    pub rotation: InEffect<KeyRotation>,
    /// The identities that keep a trust domain that is being deleted. One that is being deleted itself keeps nothing: its
    /// owner may hold it with a finalizer for as long as it likes.
    pub identities: Vec<Name>,
    pub now: Timestamp,
}

/// Names of Secrets and ConfigMaps.
#[derive(Default)]
pub struct Hanging {
    pub secrets: Vec<Name>,
    pub bundles: Vec<Name>,
}

impl Observed {
    /// Name of the trust domain.
    pub fn name(&self) -> &str {
        self.domain.metadata.name.as_deref().unwrap_or_default()
    }

    /// Name of the Secret with the root.
    pub fn root_secret(&self) -> String {
        format!("{}-root-1", self.name())
    }

    /// Name of the Secret with the intermediate of a generation.
    pub fn intermediate_secret(&self, generation: u32) -> String {
        format!("{}-intermediate-{generation}", self.name())
    }
}

/// The claim of a trust domain on its domain.
pub fn domain_claim(domain: &TrustDomain) -> NameClaim {
    NameClaim::new(Scope::TrustDomain, &[&domain.spec.domain])
}

/// The claim of a trust domain on the URL of its issuer, if it has one.
pub fn issuer_claim(domain: &TrustDomain) -> Option<NameClaim> {
    let tokens = domain.spec.tokens.as_ref()?;
    Some(NameClaim::new(Scope::Issuer, &[&tokens.issuer]))
}

/// Looks everything up, and takes the domain and the URL of the issuer if they are free.
pub fn observe(controller: &Controller, domain: Arc<TrustDomain>) -> Observed {
    let (object, claim) = (ObjectRef::of(&*domain), domain_claim(&domain));
    let claims: Vec<NameClaim> = std::iter::once(claim.clone()).chain(issuer_claim(&domain)).collect();
    let conflicts = controller.claims.take(&object, &claims, |_| true, false).conflicts;
    let holder = |claim: &NameClaim| conflicts.iter().find(|(key, _)| key == claim.key()).map(|(_, it)| it.clone());
    let owner = uid(&*domain);
    let name = domain.metadata.name.clone().unwrap_or_default();
    let own_namespace = &controller.settings.namespace;
    let mut root = None;
    let (mut intermediates, mut hanging) = (BTreeMap::new(), Hanging::default());
    for (secret, record) in controller.certificates.owned_by(Some(&owner)) {
        if *secret.namespace != **own_namespace {
            continue;
        }
        let generation = secret.name.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        if record.hangs {
            hanging.secrets.push(secret.clone());
        }
        match (record.component, generation) {
            (Some(Component::Root), _) => root = Some(record.facts.clone().ok()),
            (Some(Component::Intermediate), Some(generation)) => {
                intermediates.insert(generation, record.facts.clone().ok());
            }
            _ => {}
        }
    }
    let selector = domain.spec.bundle.as_ref().and_then(|bundle| bundle.namespace_selector.as_ref());
    let namespaces = controller.namespaces.0.valid(None);
    let selected = namespaces
        .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
        .filter_map(|namespace| Some((namespace.metadata.name?, namespace.metadata.labels.unwrap_or_default())))
        .filter(|(name, labels)| {
            name == own_namespace || selector.is_some_and(|selector| selector::matches(selector, labels))
        })
        .map(|(name, _)| name)
        .collect();
    let published = controller.bundles.owned_by(Some(&owner));
    hanging.bundles = published.iter().filter(|(_, record)| record.hangs).map(|(name, _)| name.clone()).collect();
    let published = published
        .into_iter()
        .map(|(bundle, record)| (bundle.namespace.to_string(), record.facts.clone().map(|facts| facts.0)));
    let users = domain.metadata.deletion_timestamp.as_ref().map(|_| IndexKey::cluster::<TrustDomain>(&name));
    let users = users.iter().flat_map(|key| controller.identities.using(key));
    let identities = users.filter(|it| it.metadata.deletion_timestamp.is_none()).map(|it| Name::of(&it)).collect();
    let ca_version = domain.spec.issuer.ca.as_ref().and_then(|ca| {
        controller.operator_secrets.get(Some(own_namespace), &ca.secret_ref.name)?.metadata.resource_version
    });
    let policies = controller.rotation.policies_for(own_namespace);
    let rotation = in_effect(&policies, RotationTargetKind::TrustDomain, &domain.metadata, KeyRotation::new);
    Observed {
        status: controller.handle.status(&domain),
        rotation,
        root,
        intermediates,
        ca_version,
        selected,
        published: published.collect(),
        hanging,
        domain_holder: holder(&claim),
        issuer_holder: issuer_claim(&domain).and_then(|claim| holder(&claim)),
        identities,
        now: Timestamp::now(),
        domain,
    }
}

//! Looks up what concerns a trust domain. Reads stores only; nothing is decided and nothing written here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::Context;
use super::plan::{BUNDLE, INTERMEDIATE, ROOT};
use crate::api::TrustDomain;
use crate::domain::rotation::Material;
use crate::domain::selector;
use crate::kubernetes::uid;

/// Everything that the plan depends on.
pub struct Observed {
    pub domain: TrustDomain,
    /// Whether status says that an authority was made before.
    pub had_authority: bool,
    /// Name and facts of the Secret of the root; the facts are missing when somebody else changed it.
    #[allow(clippy::option_option, reason = "absent and altered are different things")]
    pub root: Option<Option<Material>>,
    /// The same of every intermediate, by generation.
    pub intermediates: BTreeMap<u32, Option<Material>>,
    /// Resource version of the Secret that `spec.issuer.ca` names.
    pub ca_version: Option<String>,
    /// Namespaces that are to have the bundle.
    pub selected: BTreeSet<String>,
    /// Namespaces that have a bundle of ours, with its digest, or with who else has changed it.
    pub published: BTreeMap<String, Result<String, String>>,
    /// How many identities name this trust domain.
    pub identities: usize,
    pub now: Timestamp,
}

pub fn observe(context: &Context, domain: &TrustDomain) -> Observed {
    let owner = uid(domain);
    let name = domain.metadata.name.clone().unwrap_or_default();
    let own_namespace = &context.settings.namespace;
    let mut root = None;
    let mut intermediates = BTreeMap::new();
    for (secret, record) in context.secrets.owned_by(&owner) {
        if *secret.namespace != **own_namespace {
            continue;
        }
        let generation = secret.name.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        match (record.component.as_str(), generation) {
            (ROOT, _) => root = Some(record.facts.clone().ok()),
            (INTERMEDIATE, Some(generation)) => {
                intermediates.insert(generation, record.facts.clone().ok());
            }
            _ => {}
        }
    }
    let selector = domain.spec.bundle.as_ref().and_then(|bundle| bundle.namespace_selector.as_ref());
    let selected = context
        .stores
        .namespaces
        .valid(None)
        .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
        .filter_map(|namespace| Some((namespace.metadata.name?, namespace.metadata.labels.unwrap_or_default())))
        .filter(|(name, labels)| {
            name == own_namespace || selector.is_some_and(|selector| selector::matches(selector, labels))
        })
        .map(|(name, _)| name)
        .collect();
    let published = context
        .config_maps
        .owned_by(&owner)
        .into_iter()
        .filter(|(_, record)| record.component == BUNDLE)
        .map(|(bundle, record)| (bundle.namespace.to_string(), record.facts.clone().map(|facts| facts.0)))
        .collect();
    let ca_version = domain.spec.issuer.ca.as_ref().and_then(|ca| {
        context.stores.operator_secrets.get(Some(own_namespace), &ca.secret_ref.name)?.metadata.resource_version
    });
    let identities = if domain.metadata.deletion_timestamp.is_some() {
        context.stores.identities.valid(None).filter(|identity| identity.spec.trust_domain == name).count()
    } else {
        0
    };
    Observed {
        had_authority: domain.status.as_ref().is_some_and(|status| status.authority.is_some()),
        domain: domain.clone(),
        root,
        intermediates,
        ca_version,
        selected,
        published,
        identities,
        now: Timestamp::now(),
    }
}

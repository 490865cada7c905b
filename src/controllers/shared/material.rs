//! Facts about written Secrets and ConfigMaps, kept in their annotations.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::brokers::kafka::ClientAccess;
use crate::contract::component::Component;
use crate::domain::key_set::KeyRecord;
use crate::domain::rotation::Material;
use crate::domain::token_keys::TokenKey;
use crate::issuers::authority::Leaf;
use crate::issuers::pem::Certificate;
use crate::kubernetes::error::Error;
use crate::kubernetes::known::Facts;

const ISSUED_AT: &str = "credence.dev/issued-at";
const NOT_AFTER: &str = "credence.dev/not-after";
const AUTHORITY: &str = "credence.dev/authority";
const INPUTS: &str = "credence.dev/inputs";
const SURROUNDINGS: &str = "credence.dev/surroundings";
const SERIAL_NUMBER: &str = "credence.dev/serial-number";
const FINGERPRINT: &str = "credence.dev/fingerprint";
const BUNDLE_HASH: &str = "credence.dev/bundle-hash";

impl Facts for Material {
    const COMPONENTS: &'static [Component] =
        &[Component::Root, Component::Intermediate, Component::Mtls, Component::BrokerAccount];

    fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = |key: &str| annotations.get(key).cloned();
        let time = |key: &str| annotations.get(key)?.parse::<Timestamp>().ok();
        Some(Self {
            issued_at: time(ISSUED_AT)?,
            not_after: time(NOT_AFTER)?,
            authority: text(AUTHORITY)?,
            inputs: text(INPUTS)?,
            surroundings: text(SURROUNDINGS)?,
            altered_by: None,
            serial_number: text(SERIAL_NUMBER)?,
            fingerprint: text(FINGERPRINT)?,
        })
    }

    fn entries(component: Component) -> &'static [&'static str] {
        component.entries().unwrap_or(ClientAccess::ENTRIES)
    }
}

/// Describes a certificate that is about to be stored.
#[must_use]
pub fn describe(
    certificate: &Certificate,
    issued_at: Timestamp,
    authority: &str,
    inputs: &str,
    surroundings: &str,
) -> Material {
    Material {
        issued_at: crate::api::whole_seconds(issued_at),
        not_after: certificate.not_after,
        authority: authority.to_owned(),
        inputs: inputs.to_owned(),
        surroundings: surroundings.to_owned(),
        altered_by: None,
        serial_number: certificate.serial_number.clone(),
        fingerprint: certificate.fingerprint(),
    }
}

/// Describes an issued certificate.
#[must_use]
pub fn describe_leaf(leaf: &Leaf, authority: &str, inputs: &str, surroundings: &str) -> Material {
    describe(&leaf.certificate, leaf.issued_at, authority, inputs, surroundings)
}

/// The annotations that [`Facts::read`] reads.
#[must_use]
pub fn annotations(material: &Material) -> BTreeMap<String, String> {
    [
        (ISSUED_AT, material.issued_at.to_string()),
        (NOT_AFTER, material.not_after.to_string()),
        (AUTHORITY, material.authority.clone()),
        (INPUTS, material.inputs.clone()),
        (SURROUNDINGS, material.surroundings.clone()),
        (SERIAL_NUMBER, material.serial_number.clone()),
        (FINGERPRINT, material.fingerprint.clone()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Facts about a trust bundle in a ConfigMap: the digest of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFacts(pub String);

impl Facts for BundleFacts {
    const COMPONENTS: &'static [Component] = &[Component::TrustBundle];

    fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        annotations.get(BUNDLE_HASH).cloned().map(Self)
    }

    fn entries(component: Component) -> &'static [&'static str] {
        component.entries().unwrap_or_default()
    }
}

impl BundleFacts {
    /// The annotations that [`Facts::read`] reads.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(BUNDLE_HASH.to_owned(), self.0.clone())])
    }
}

const WEBHOOK_KEYS: &str = "credence.dev/keys";
const ROUTE_DIGEST: &str = "credence.dev/route-digest";
const ROUTE_SIZE: &str = "credence.dev/route-size";
const ROUTE_BY_NAME: &str = "credence.dev/route-by-name";
/// What a route counts as that was written before its size was noted, in bytes.
const USUAL_SIZE: usize = 4 << 10;

/// Facts about a Secret of a webhook: the digest of a route, or the keys of a key set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookFacts {
    /// Digest of the route; empty for keys.
    pub digest: String,
    /// Length of the document of a route, in bytes; none for keys.
    pub size: Option<usize>,
    /// Whether a route reaches its Service by name, as all did that were written before their sizes were noted.
    pub by_name: bool,
    /// The keys, without their material; none for a route.
    pub keys: Vec<KeyRecord>,
}

impl Facts for WebhookFacts {
    const COMPONENTS: &'static [Component] = &[Component::WebhookKeys, Component::WebhookRoute];

    fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let digest = annotations.get(ROUTE_DIGEST)?.clone();
        let keys = serde_json::from_str(annotations.get(WEBHOOK_KEYS)?).ok()?;
        if digest.is_empty() {
            return Some(Self { keys, ..Self::default() });
        }
        let size = annotations.get(ROUTE_SIZE).and_then(|size| size.parse().ok());
        let by_name = size.is_none() || annotations.contains_key(ROUTE_BY_NAME);
        Some(Self { size: size.or(Some(USUAL_SIZE)), by_name, digest, keys })
    }

    fn entries(component: Component) -> &'static [&'static str] {
        component.entries().unwrap_or_default()
    }

    fn size(&self) -> Option<usize> {
        self.size
    }
}

impl WebhookFacts {
    /// The annotations that [`Facts::read`] reads.
    ///
    /// # Errors
    /// Never: they are plain data.
    pub fn annotations(&self) -> Result<BTreeMap<String, String>, Error> {
        let keys = serde_json::to_string(&self.keys).map_err(|error| Error::Bug(error.to_string()))?;
        let size = self.size.map(|size| (ROUTE_SIZE.to_owned(), size.to_string()));
        let facts = [(ROUTE_DIGEST.to_owned(), self.digest.clone()), (WEBHOOK_KEYS.to_owned(), keys)];
        let by_name = self.by_name.then(|| (ROUTE_BY_NAME.to_owned(), "true".to_owned()));
        Ok(facts.into_iter().chain(size).chain(by_name).collect())
    }
}

const TOKENS_DIGEST: &str = "credence.dev/tokens-digest";
const TOKEN_KEYS: &str = "credence.dev/token-keys";

/// Facts about a Secret of the token issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// Digest of its document, private keys aside.
    pub digest: String,
    /// The keys of an issuer, the one that signs first; none for calls.
    pub keys: Vec<TokenKey>,
}

impl Facts for TokenFacts {
    const COMPONENTS: &'static [Component] = &[Component::TokenIssuer, Component::TokenCalls];

    fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let digest = annotations.get(TOKENS_DIGEST)?.clone();
        let keys = annotations.get(TOKEN_KEYS).map_or(Some(Vec::new()), |keys| serde_json::from_str(keys).ok())?;
        Some(Self { digest, keys })
    }

    fn entries(component: Component) -> &'static [&'static str] {
        component.entries().unwrap_or_default()
    }
}

impl TokenFacts {
    /// The annotations that [`Facts::read`] reads.
    ///
    /// # Errors
    /// Never: they are plain data.
    pub fn annotations(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut annotations = BTreeMap::from([(TOKENS_DIGEST.to_owned(), self.digest.clone())]);
        if !self.keys.is_empty() {
            let keys = serde_json::to_string(&self.keys).map_err(|error| Error::Bug(error.to_string()))?;
            annotations.insert(TOKEN_KEYS.to_owned(), keys);
        }
        Ok(annotations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that is in no list is not watched, and one in two lists is taken for two things.
    #[test]
    fn every_component_is_watched_once() {
        let watched =
            [Material::COMPONENTS, BundleFacts::COMPONENTS, WebhookFacts::COMPONENTS, TokenFacts::COMPONENTS].concat();
        let by_others = [Component::EdgeReport, Component::Records, Component::BrokerRecords, Component::NameRecords];
        for component in Component::ALL.iter().filter(|it| !by_others.contains(it)) {
            let lists = watched.iter().filter(|it| *it == component).count();
            assert_eq!(lists, 1, "{component} belongs in the COMPONENTS of one kind of facts");
        }
    }

    #[test]
    fn facts_survive_the_way_through_annotations() {
        let material = Material {
            issued_at: Timestamp::from_second(1_000).unwrap(),
            not_after: Timestamp::from_second(2_000).unwrap(),
            authority: "a".into(),
            inputs: "i".into(),
            surroundings: "s".into(),
            altered_by: None,
            serial_number: "01".into(),
            fingerprint: "f".into(),
        };
        let mut stored = annotations(&material);
        assert_eq!(Material::read(&stored), Some(material));
        stored.remove(FINGERPRINT);
        assert_eq!(Material::read(&stored), None);
    }

    #[test]
    fn a_route_reaches_its_service_by_name_as_long_as_it_always_did() {
        let read = |facts: &WebhookFacts| WebhookFacts::read(&facts.annotations().unwrap()).unwrap();
        let route = WebhookFacts { digest: "d".into(), size: Some(7), ..WebhookFacts::default() };
        for route in [WebhookFacts { by_name: true, ..route.clone() }, route.clone(), WebhookFacts::default()] {
            assert_eq!(read(&route), route);
        }
        let before = read(&WebhookFacts { size: None, ..route });
        assert_eq!((before.size, before.by_name), (Some(USUAL_SIZE), true), "as 0.2.0 wrote it");
    }
}

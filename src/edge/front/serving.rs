//! Which certificate a caller is shown: one for the name that it asks for (SNI, RFC 6066 section 3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use rustls::SignatureScheme;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::certificate::{CertificateError, entry, read_chain, read_key};

/// A certificate that callers are shown, with its key.
#[derive(Debug)]
pub struct ServingCertificate {
    key: Arc<CertifiedKey>,
    /// When the first certificate of the chain expires, in seconds since 1970.
    pub expires_at: i64,
}

impl ServingCertificate {
    /// Reads the entries `tls.crt` and `tls.key` of a Secret, as cert-manager writes them.
    ///
    /// # Errors
    /// Names the entry that cannot be used.
    pub fn parse(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let (chain, expires_at) = read_chain(chain)?;
        Self::new(chain, read_key(key)?, expires_at, provider)
    }

    /// The certificate of a chain and a key.
    ///
    /// # Errors
    /// When they do not belong together.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        expires_at: i64,
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        let key = CertifiedKey::from_der(chain, key, provider).map_err(CertificateError::Pair)?;
        Ok(Self { key: Arc::new(key), expires_at })
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let parsed = self.key.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        parsed.is_some_and(|leaf| verify_server_name(&leaf, name).is_ok())
    }

    fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }
}

/// The certificates to choose from.
#[derive(Clone, Debug, Default)]
pub(super) struct ServingCertificates {
    /// Those that callers are meant to be shown, by their place in the configuration.
    pub named: BTreeMap<usize, Arc<ServingCertificate>>,
    /// The edge's own.
    pub own: Option<Arc<ServingCertificate>>,
}

impl ServingCertificates {
    /// The first one for the name, at best with a key by which the caller can verify; without any, the first one of all.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let all = || self.named.values().chain(&self.own);
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let fitting = || all().filter(|certificate| name.as_ref().is_some_and(|name| certificate.is_for(name)));
        let chosen = fitting().find(|certificate| certificate.can_sign(schemes)).or_else(|| fitting().next());
        chosen.or_else(|| all().next()).map(|certificate| &certificate.key)
    }
}

impl ResolvesServerCert for ServingCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

/// Follows the Secrets with these names, and hands every certificate in them to `show`, with the place of its name. Calls `listed`
/// once all that exist were read. One that is missing or invalid changes nothing about the others, nor about a former one.
pub async fn follow(
    events: impl Stream<Item = Event<Secret>>,
    names: &[String],
    show: impl Fn(usize, &[u8], &[u8]) -> Result<(), CertificateError>,
    listed: impl Fn(),
) {
    pin_mut!(events);
    let mut seen = BTreeSet::new();
    while let Some(event) = events.next().await {
        let place = |secret: &Secret| names.iter().position(|name| *name == secret.name_any());
        match event {
            Event::Init => seen.clear(),
            Event::InitDone => {
                for name in (0..names.len()).filter(|place| !seen.contains(place)).map(|place| &names[place]) {
                    tracing::error!(secret = name, "no Secret with this serving certificate; not showing it");
                }
                listed();
            }
            Event::Delete(secret) => {
                if place(&secret).is_some() {
                    tracing::error!(secret = secret.name_any(), "serving certificate deleted; still showing it");
                }
            }
            Event::Apply(secret) | Event::InitApply(secret) => {
                let Some(place) = place(&secret) else { continue };
                seen.insert(place);
                match show(place, entry(&secret, "tls.crt"), entry(&secret, "tls.key")) {
                    Ok(()) => tracing::info!(secret = secret.name_any(), "serving certificate loaded"),
                    Err(error) => {
                        tracing::error!(secret = secret.name_any(), %error, "invalid serving certificate; not using it");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;

    fn certificate(name: &str, algorithm: &'static SignatureAlgorithm) -> Arc<ServingCertificate> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let (pem, key) = (certificate.pem(), key.serialize_pem());
        Arc::new(ServingCertificate::parse(pem.as_bytes(), key.as_bytes(), &default_provider()).unwrap())
    }

    #[test]
    fn a_caller_is_shown_the_certificate_of_the_name_it_asks_for() {
        let names = ["hooks.example", "*.hooks.example", "localhost"];
        let [first, wildcard, own] = names.map(|name| certificate(name, &PKCS_ECDSA_P256_SHA256));
        let named = BTreeMap::from([(0, first.clone()), (3, wildcard.clone())]);
        let shown = ServingCertificates { named, own: Some(own.clone()) };
        let is = |name: Option<&str>, expected: &Arc<ServingCertificate>| {
            let chosen = shown.choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
            assert!(Arc::ptr_eq(chosen, &expected.key), "{name:?}");
        };
        is(Some("hooks.example"), &first);
        is(Some("HOOKS.example"), &first);
        is(Some("a.hooks.example"), &wildcard);
        is(Some("localhost"), &own);
        for other in [Some("a.b.hooks.example"), Some("other.example"), Some("not a name"), None] {
            is(other, &first);
        }
        let only_own = ServingCertificates { named: BTreeMap::new(), own: Some(own.clone()) };
        assert!(Arc::ptr_eq(only_own.choose(Some("other.example"), &[]).unwrap(), &own.key));
        assert!(ServingCertificates::default().choose(None, &[]).is_none());
    }

    #[test]
    fn of_two_certificates_for_a_name_one_is_shown_that_the_caller_can_verify() {
        let ed25519 = certificate("hooks.example", &PKCS_ED25519);
        let ecdsa = certificate("hooks.example", &PKCS_ECDSA_P256_SHA256);
        let named = BTreeMap::from([(0, ed25519.clone()), (1, ecdsa.clone())]);
        let shown = ServingCertificates { named, own: None };
        for (schemes, expected) in [
            (&[SignatureScheme::ECDSA_NISTP256_SHA256][..], &ecdsa),
            (&[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519], &ed25519),
            (&[SignatureScheme::RSA_PSS_SHA256], &ed25519),
        ] {
            assert!(Arc::ptr_eq(shown.choose(Some("hooks.example"), schemes).unwrap(), &expected.key), "{schemes:?}");
        }
    }
}

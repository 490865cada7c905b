//! The embedded issuer: a root that issues intermediates only, and intermediates that issue certificates.

use jiff::{SignedDuration, Timestamp};
use rcgen::{Issuer, KeyPair};

use super::IssuerError;
use super::authority::{authority_params, generate_key};
use super::pem::{self, Certificate};
use crate::api::KeyAlgorithm;
use crate::domain::rotation::BACKDATE;
use crate::domain::secret::SecretText;

/// How long a root is valid.
const ROOT_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// How long an intermediate is valid.
const INTERMEDIATE_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 365);
/// How long before it expires an intermediate gets a successor: long enough that a certificate of half a year is never cut
/// short. The root stays the same, so a successor does not change the trust bundle.
const SUCCESSOR_MARGIN: SignedDuration = SignedDuration::from_hours(24 * 185);

/// The certificate of an authority with its private key, ready to be stored.
pub struct AuthorityMaterial {
    /// The certificate, in PEM.
    pub certificate_pem: String,
    /// Its private key.
    pub key: SecretText,
    /// The certificate.
    pub certificate: Certificate,
}

/// Creates a root.
///
/// # Errors
/// The error of the certificate library.
pub fn make_root(domain: &str, algorithm: KeyAlgorithm, now: Timestamp) -> Result<AuthorityMaterial, IssuerError> {
    let key = generate_key(algorithm)?;
    let params = authority_params(domain, "Credence root 1", 1, validity(now, ROOT_LIFETIME))?;
    material(&params.self_signed(&key)?, &key)
}

/// Creates an intermediate; `generation` is part of its name.
///
/// # Errors
/// When the root cannot be read or has expired, or the certificate library returns an error.
pub fn make_intermediate(
    domain: &str,
    generation: u32,
    algorithm: KeyAlgorithm,
    root: &Certificate,
    root_key: &SecretText,
    now: Timestamp,
) -> Result<AuthorityMaterial, IssuerError> {
    super::authority::check_validity(root, "the root", now)?;
    let root_key = KeyPair::from_pem(root_key.expose())
        .map_err(|_| IssuerError::Invalid("the private key of the root cannot be read".into()))?;
    let issuer = Issuer::from_ca_cert_der(&root.der, root_key)?;
    let key = generate_key(algorithm)?;
    let (starts, ends) = validity(now, INTERMEDIATE_LIFETIME);
    let name = format!("Credence intermediate {generation}");
    let params = authority_params(domain, &name, 0, (starts, ends.min(root.not_after)))?;
    material(&params.signed_by(&key, &issuer)?, &key)
}

/// When an intermediate that expires at this time gets a successor.
#[must_use]
pub fn successor_due(not_after: Timestamp) -> Timestamp {
    not_after.saturating_sub(SUCCESSOR_MARGIN).unwrap_or(not_after)
}

fn validity(now: Timestamp, lifetime: SignedDuration) -> (Timestamp, Timestamp) {
    (now.saturating_sub(BACKDATE).unwrap_or(now), now.saturating_add(lifetime).unwrap_or(now))
}

fn material(certificate: &rcgen::Certificate, key: &KeyPair) -> Result<AuthorityMaterial, IssuerError> {
    Ok(AuthorityMaterial {
        certificate_pem: pem::encode(certificate.der()),
        key: SecretText::new(key.serialize_pem()),
        certificate: Certificate::parse(certificate.der().clone())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::{SpiffeId, Subject};
    use crate::issuers::authority::{LeafRequest, SigningAuthority};

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn authority(algorithm: KeyAlgorithm) -> SigningAuthority {
        let root = make_root("demo", algorithm, now()).unwrap();
        let intermediate = make_intermediate("demo", 1, algorithm, &root.certificate, &root.key, now()).unwrap();
        SigningAuthority::new(vec![intermediate.certificate], &intermediate.key, vec![root.certificate], now()).unwrap()
    }

    fn request(algorithm: KeyAlgorithm, lifetime: SignedDuration) -> LeafRequest {
        LeafRequest {
            spiffe_id: SpiffeId::new("demo", "shop", "orders").unwrap(),
            subject: Subject::new("demo", "shop", "orders"),
            dns_names: vec!["orders.shop.svc".into()],
            key_algorithm: algorithm,
            lifetime,
        }
    }

    #[test]
    fn every_key_algorithm_issues_valid_certificates() {
        for algorithm in [KeyAlgorithm::Ecdsa, KeyAlgorithm::Ed25519, KeyAlgorithm::Rsa] {
            let leaf = authority(algorithm).issue(&request(algorithm, SignedDuration::from_hours(1)), now()).unwrap();
            assert_eq!(leaf.chain_pem.matches("BEGIN CERTIFICATE").count(), 2, "leaf and intermediate, no root");
            assert!(leaf.certificate.not_before < now(), "back-dated");
            assert!(!leaf.certificate.is_authority);
        }
    }

    #[test]
    fn a_certificate_expires_no_later_than_its_authority() {
        let authority = authority(KeyAlgorithm::Ecdsa);
        let year = SignedDuration::from_hours(24 * 397);
        let leaf = authority.issue(&request(KeyAlgorithm::Ecdsa, year), now()).unwrap();
        assert_eq!(leaf.certificate.not_after, authority.not_after());
        let late = authority.not_after();
        let refused = authority.issue(&request(KeyAlgorithm::Ecdsa, year), late);
        assert!(matches!(refused, Err(IssuerError::Expiring(_))));
    }

    #[test]
    fn keys_do_not_appear_in_debug_output() {
        let leaf = authority(KeyAlgorithm::Ecdsa)
            .issue(&request(KeyAlgorithm::Ecdsa, SignedDuration::from_hours(1)), now())
            .unwrap();
        assert!(!format!("{leaf:?}").contains("PRIVATE"));
    }
}

//! Authorities that the certificates of peers may chain to.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

/// Why a text names no authorities. Nothing of the text is repeated: it could hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidAuthorities {
    /// It is not PEM, or holds something else than certificates.
    #[error("it is not made of certificates in PEM only; write certificates of authorities, and nothing else")]
    NotCertificates,
    /// There is nothing in it.
    #[error("there is no certificate in it; write certificates of authorities in PEM")]
    Empty,
    /// There are more than allowed.
    #[error("there are more than {max} certificates in it; write those of the authorities only")]
    TooMany {
        /// How many are allowed.
        max: usize,
    },
    /// One of them cannot be read.
    #[error("its certificate number {number} cannot be read; replace it")]
    Unreadable {
        /// Its place, from 1.
        number: usize,
    },
}

/// A set of authorities, with what verifies chains that end at one of them.
pub struct Authorities {
    digest: [u8; 32],
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authorities {
    /// Reads at most `max` certificates in PEM.
    ///
    /// # Errors
    /// Says what is wrong, and repeats nothing of the text.
    pub fn parse(pem: &[u8], max: usize) -> Result<Self, InvalidAuthorities> {
        let mut certificates = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            match section {
                Ok((SectionKind::Certificate, der)) if certificates.len() < max => certificates.push(der),
                Ok((SectionKind::Certificate, _)) => return Err(InvalidAuthorities::TooMany { max }),
                _ => return Err(InvalidAuthorities::NotCertificates),
            }
        }
        let mut roots = RootCertStore::empty();
        for (index, der) in certificates.iter().enumerate() {
            let added = roots.add(CertificateDer::from_slice(der));
            added.map_err(|_| InvalidAuthorities::Unreadable { number: index + 1 })?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        let verifier = verifier.map_err(|_| InvalidAuthorities::Empty)?;
        Ok(Self { digest: digest(certificates), verifier })
    }

    /// Identifies the set: two texts with the same certificates have one digest.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether a chain, the peer's own certificate first, is that of a client that one of these authorities vouches for, and all
    /// of it is valid at this time (RFC 5280, and the extended key usage `clientAuth` where the certificate has any).
    pub(super) fn vouch_for(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        let (Some((leaf, intermediates)), Ok(seconds)) = (chain.split_first(), u64::try_from(now.as_second())) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier.verify_client_cert(leaf, intermediates, now).is_ok()
    }
}

fn digest(mut certificates: Vec<Vec<u8>>) -> [u8; 32] {
    certificates.sort();
    certificates.dedup();
    let mut context = Context::new(&SHA256);
    for certificate in certificates {
        context.update(&certificate.len().to_be_bytes());
        context.update(&certificate);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn root() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([]).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn refused(pem: &str) -> InvalidAuthorities {
        Authorities::parse(pem.as_bytes(), 2).err().unwrap()
    }

    #[test]
    fn only_certificates_are_taken_and_nothing_is_quoted() {
        let (root, key) = root();
        assert!(Authorities::parse(format!("# ours\n{root}{root}").as_bytes(), 2).is_ok());
        assert_eq!(refused(""), InvalidAuthorities::Empty);
        assert_eq!(refused("s3cret"), InvalidAuthorities::Empty);
        assert_eq!(refused(&format!("{root}{key}")), InvalidAuthorities::NotCertificates);
        assert_eq!(refused(&root.repeat(3)), InvalidAuthorities::TooMany { max: 2 });
        let empty = "-----BEGIN CERTIFICATE-----\nczNjcmV0\n-----END CERTIFICATE-----\n";
        assert_eq!(refused(&format!("{root}{empty}")), InvalidAuthorities::Unreadable { number: 2 });
        assert_eq!(refused("-----BEGIN CERTIFICATE-----\ns3cret!\n"), InvalidAuthorities::NotCertificates);
    }

    #[test]
    fn a_set_is_known_by_its_certificates() {
        let ((one, _), (other, _)) = (root(), root());
        let digest = |pem: String| Authorities::parse(pem.as_bytes(), 8).unwrap().digest();
        assert_eq!(digest(format!("{one}{other}")), digest(format!("# text\n{other}\n{one}{one}")));
        assert_ne!(digest(one), digest(other));
    }
}

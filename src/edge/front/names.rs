//! What is read in a certificate.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The last second in which a certificate is valid, since 1970; `None` when it cannot be read.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate.validity.not_after.timestamp())
}

/// The names in a certificate. They prove something only if an authority vouches for the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// The SPIFFE ID, when the certificate has exactly one URI SAN and that is one (X509-SVID section 2).
    pub spiffe_id: Option<String>,
    /// DNS SANs, in lower case.
    pub dns_names: Vec<String>,
}

impl CertificateNames {
    /// Reads the names of a certificate; one that cannot be read has none.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Self::default() };
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return Self::default() };
        let mut uris = Vec::new();
        let mut dns_names = Vec::new();
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::DNSName(name) => dns_names.push(name.to_ascii_lowercase()),
                _ => {}
            }
        }
        // Exactly one, or the certificate is no SVID (X509-SVID section 2).
        let spiffe_id = match uris.as_slice() {
            [uri] if uri.starts_with("spiffe://") => Some((*uri).to_owned()),
            _ => None,
        };
        Self { spiffe_id, dns_names }
    }
}

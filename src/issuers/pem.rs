//! Certificates in PEM.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::IssuerError;
use crate::domain::defect;
use crate::domain::identity::hex;

/// A certificate with its most used fields.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The encoded certificate.
    pub der: CertificateDer<'static>,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Whether it may sign certificates: `CA:TRUE`, and the key usage `keyCertSign` unless it has no key usage
    /// (RFC 5280 section 4.2.1).
    pub is_authority: bool,
    /// Its public key (`SubjectPublicKeyInfo`, DER).
    pub public_key: Vec<u8>,
    /// Serial number, in hexadecimal.
    pub serial_number: String,
    /// Whether subject and issuer are the same.
    pub is_self_issued: bool,
}

impl Certificate {
    /// Reads an encoded certificate.
    ///
    /// # Errors
    /// When it is not an X.509 certificate.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, IssuerError> {
        let invalid = |what: &str| IssuerError::Invalid(format!("not an X.509 certificate: {what}"));
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|_| invalid("its DER encoding is malformed"))?;
        if !rest.is_empty() {
            return Err(invalid("bytes follow the certificate"));
        }
        let time = |seconds| Timestamp::from_second(seconds).map_err(|_| invalid("a date is out of range"));
        let signs = parsed.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        let ca = parsed.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca);
        let certificate = Self {
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
            is_authority: ca && signs,
            public_key: parsed.public_key().raw.to_vec(),
            serial_number: hex(parsed.raw_serial()),
            is_self_issued: parsed.subject() == parsed.issuer(),
            der: CertificateDer::from(Vec::new()),
        };
        Ok(Self { der, ..certificate })
    }

    /// SHA-256 of the encoded certificate, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.der))
    }
}

/// Reads all certificates of a PEM text; `what` is its name in errors.
///
/// # Errors
/// When the text holds no certificate, more than 64, or one that cannot be read.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<Certificate>, IssuerError> {
    let invalid = |cause: &str| IssuerError::Invalid(format!("{what}: {cause}"));
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| invalid(defect::of_pem(&error)))?;
        found.push(Certificate::parse(der).map_err(|error| invalid(&error.to_string()))?);
        if found.len() > 64 {
            return Err(invalid("holds more than 64 certificates"));
        }
    }
    if found.is_empty() { Err(invalid("holds no certificate in PEM")) } else { Ok(found) }
}

/// Writes a certificate as PEM with line feeds.
#[must_use]
pub fn encode(der: &CertificateDer<'_>) -> String {
    ::pem::encode_config(
        &::pem::Pem::new("CERTIFICATE", der.as_ref()),
        ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_nothing_that_was_read() {
        for (text, says) in [
            ("-----BEGIN CERTIFICATE-----\nc2VjcmV0\n", "no END line"),
            ("-----BEGIN secret\n", "BEGIN line"),
            ("-----BEGIN CERTIFICATE-----\nsecret!\n-----END CERTIFICATE-----\n", "Base64"),
            ("secret", "holds no certificate"),
        ] {
            let error = certificates(text.as_bytes(), "tls.crt").unwrap_err().to_string();
            assert!(error.starts_with("tls.crt: ") && error.contains(says), "{error}");
            assert!(!error.contains("secret") && !error.contains("c2Vj"), "{error}");
        }
    }
}

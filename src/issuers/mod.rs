//! Authorities, and the certificates that they issue. Private keys are kept here and in Secrets only.

pub mod authority;
pub mod ca;
pub mod pem;
pub mod self_signed;
pub mod token_key;

use thiserror::Error;

use crate::domain::identity::NameTooLong;

/// Why an authority or a certificate cannot be created or used.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// A certificate or key cannot be read, or cannot be used for its purpose. The text says which one and why.
    #[error("{0}")]
    Invalid(String),
    /// The authority expires too soon to issue anything.
    #[error("the authority expires at {0}, too soon to issue certificates; renew the authority")]
    Expiring(jiff::Timestamp),
    /// The SPIFFE ID would be too long.
    #[error(transparent)]
    Name(#[from] NameTooLong),
    /// The certificate library returned an error. Its text is not repeated: it may quote what was read.
    #[error("cannot create the certificate: {}", describe(.0))]
    Certificate(#[from] rcgen::Error),
}

fn describe(error: &rcgen::Error) -> &'static str {
    match error {
        rcgen::Error::CouldNotParseCertificate | rcgen::Error::X509(_) => {
            "the certificate of the authority cannot be read"
        }
        rcgen::Error::CouldNotParseKeyPair | rcgen::Error::RingKeyRejected(_) => "the key is not usable",
        rcgen::Error::UnsupportedSignatureAlgorithm | rcgen::Error::KeyGenerationUnavailable => {
            "the algorithm of the key is not supported"
        }
        rcgen::Error::InvalidAsn1String(_) | rcgen::Error::InvalidNameType => "a name in it is not allowed",
        _ => "the library failed",
    }
}

//! Authorities: where certificates come from. Keys live here and in Secrets, nowhere else.

pub mod authority;
pub mod ca;
pub mod pem;
pub mod self_signed;

use thiserror::Error;

use crate::domain::identity::NameTooLong;

/// Why an authority or a certificate cannot be made or used.
#[derive(Debug, Error)]
pub enum IssuerError {
    /// A certificate or key cannot be read, or does not fit what it is for. The text says which and why.
    #[error("{0}")]
    Invalid(String),
    /// The authority ends too soon to sign anything.
    #[error("the authority is valid until {0} only, too short to issue from; renew the authority")]
    Expiring(jiff::Timestamp),
    /// The SPIFFE ID would be too long.
    #[error(transparent)]
    Name(#[from] NameTooLong),
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

//! Who calls, as far as the connection shows it.

use std::net::IpAddr;

use crate::edge::front::{CertificateNames, Connection};

/// A caller, as its connection shows it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Address of the connection.
    pub address: IpAddr,
    /// The names in the caller's certificate; `None` when it presented none.
    pub certificate: Option<CertificateNames>,
}

impl Caller {
    /// The caller at the other end of a connection.
    #[must_use]
    pub fn of(connection: &Connection) -> Self {
        let certificate = connection.presented_chain().first().map(CertificateNames::of);
        Self { address: connection.peer, certificate }
    }

    /// Its identity for the audit log: the SPIFFE ID, or else the first DNS name of its certificate.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        let names = self.certificate.as_ref()?;
        names.spiffe_id.as_deref().or_else(|| names.dns_names.first().map(String::as_str))
    }
}

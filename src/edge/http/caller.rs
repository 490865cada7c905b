//! Who calls, as far as the connection shows it.

use std::net::IpAddr;

use crate::edge::front::{ClientCertificate, Connection};

/// A caller, as its connection shows it.
pub struct Caller {
    /// Address of the connection.
    pub address: IpAddr,
    /// The certificate that the caller has presented, if any. Nobody has vouched for it yet.
    pub certificate: Option<ClientCertificate>,
}

impl Caller {
    /// The caller at the other end of a connection, whose certificate is taken.
    #[must_use]
    pub fn of(connection: &mut Connection) -> Self {
        Self { address: connection.peer, certificate: connection.certificate.take() }
    }
}

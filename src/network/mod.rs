//! Connections, to addresses that a policy admits and to no other, and what arrives on connections.

pub mod bounded;
pub mod http;
mod pieces;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::{io, iter};

use tokio::net::{TcpStream, lookup_host};

pub use self::pieces::Pieces;
use crate::domain::address_policy::{AddressPolicy, Refused};

/// Connects to a server, `host:port`, over TCP.
///
/// # Errors
/// Why there is no connection; [`io::ErrorKind::PermissionDenied`] with [`Refused`] in it when no address of the host is admitted.
pub async fn connect(server: &str, policy: &AddressPolicy) -> io::Result<TcpStream> {
    let found = lookup_host(server).await?;
    let admitted = admitted(found, policy)?;
    let stream = TcpStream::connect(admitted.as_slice()).await?;
    // Requests are small and each waits for its answer: collecting data for a full packet only adds delay.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The addresses of a host that are admitted.
///
/// # Errors
/// When there are addresses and none is admitted.
pub fn admitted(found: impl Iterator<Item = SocketAddr>, policy: &AddressPolicy) -> io::Result<Vec<SocketAddr>> {
    let (mut admitted, mut refused) = (Vec::new(), None);
    for address in found {
        match policy.judge(address.ip()) {
            Ok(()) => admitted.push(address),
            Err(why) => refused = Some(denied(address.ip(), why)),
        }
    }
    match refused {
        Some(error) if admitted.is_empty() => Err(error),
        _ => Ok(admitted),
    }
}

/// The error for an address that is refused. It does not name the address: it may go to the log of a tenant.
fn denied(address: IpAddr, why: Refused) -> io::Error {
    tracing::debug!(%address, %why, "refused to connect to an address");
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// An error, and what it came from, the last cause last.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |cause| {
        let cause: &'a (dyn Error + 'static) = *cause;
        // An I/O error returns the source of the error that it wraps, and so hides that error.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| cause.source())
    })
}

/// Why a connection was refused before it was made, if it was.
#[must_use]
pub fn refusal(error: &io::Error) -> Option<Refused> {
    error.get_ref()?.downcast_ref().copied()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_refused_address_sees_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap().to_string();
        for server in [server.as_str(), "localhost:1", "169.254.169.254:80", "[::1]:1", "0.0.0.0:1"] {
            let error = connect(server, &AddressPolicy::trusted(None)).await.unwrap_err();
            assert!(refusal(&error).is_some(), "{server}: {error}");
        }
        let own = AddressPolicy::trusted(Some("127.0.0.1".parse().unwrap()));
        let (connected, accepted) = tokio::join!(connect(&server, &own), listener.accept());
        assert_eq!(accepted.unwrap().1, connected.unwrap().local_addr().unwrap(), "it is the first connection");
    }
}

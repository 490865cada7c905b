//! The connection to Redis: made when it is needed, and again after it was lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, RedisResult,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::replies::Bounded;
use crate::domain::address_policy::AddressPolicy;
use crate::network;

/// How long an answer may take: a caller waits for it.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long connecting may take, with TLS and the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a failure to connect is the answer to everybody.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The URL of Redis cannot be used. It is not repeated, since it holds a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is not a URL such as rediss://user:password@host:6379/0")]
pub struct InvalidRedisUrl;

/// How Redis is reached.
struct Server {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    login: RedisConnectionInfo,
    addresses: AddressPolicy,
}

/// A connection that is shared by everybody who asks.
#[derive(Clone)]
pub struct Connection {
    server: Arc<Server>,
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    /// The open connection, and which one it is.
    open: Option<(u64, MultiplexedConnection)>,
    count: u64,
    failed: Option<Instant>,
}

impl Connection {
    /// A connection to the Redis at a URL. It need not be reachable yet.
    ///
    /// # Errors
    /// When the URL cannot be read, or TLS cannot be set up.
    pub fn new(url: &str, addresses: &AddressPolicy) -> Result<Self, InvalidRedisUrl> {
        let info = url.into_connection_info().map_err(|_| InvalidRedisUrl)?;
        let (host, port, has_tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, insecure: false, .. } => (host.clone(), *port, true),
            _ => return Err(InvalidRedisUrl),
        };
        if !has_tls {
            tracing::warn!(
                "the connection to Redis is not encrypted: whoever can read it learns its password; use a rediss:// URL"
            );
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = if has_tls {
            let name = ServerName::try_from(host.clone()).map_err(|_| InvalidRedisUrl)?;
            Some((TlsConnector::from(Arc::new(tls().map_err(|_| InvalidRedisUrl)?)), name))
        } else {
            None
        };
        // Replies of the later protocol are of more kinds.
        let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let server = Server { host, port, tls, login, addresses: addresses.clone() };
        Ok(Self { server: Arc::new(server), current: Arc::default() })
    }

    /// Sends a command over the open connection, or over a new one, and returns its answer.
    ///
    /// # Errors
    /// Why there is no clear answer.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let (number, mut connection) = self.open().await?;
        let answer = command.query_async(&mut connection).await;
        if let Err(error) = &answer
            && is_lost(error)
        {
            self.current.lock().await.open.take_if(|(open, _)| *open == number);
        }
        answer
    }

    async fn open(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let mut current = self.current.lock().await;
        if let Some(open) = &current.open {
            return Ok(open.clone());
        }
        if current.failed.is_some_and(|failed| failed.elapsed() < RETRY_DELAY) {
            return Err(
                io::Error::new(io::ErrorKind::NotConnected, "the last attempt to connect has failed just now").into()
            );
        }
        let connecting = timeout(CONNECT_TIMEOUT, self.server.connect()).await;
        let connected = connecting.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        current.failed = connected.is_err().then(Instant::now);
        current.count += 1;
        let open = (current.count, connected?);
        current.open = Some(open.clone());
        Ok(open)
    }
}

impl Server {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let Self { host, port, .. } = self;
        let server = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let stream = network::connect(&server, &self.addresses).await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_TIMEOUT));
        // The work of the connection ends with the last handle on it.
        Ok(match &self.tls {
            None => {
                let made = MultiplexedConnection::new_with_config(&self.login, Bounded::new(stream), config).await?;
                tokio::spawn(made.1);
                made.0
            }
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                let made = MultiplexedConnection::new_with_config(&self.login, Bounded::new(stream), config).await?;
                tokio::spawn(made.1);
                made.0
            }
        })
    }
}

/// Whether another command over the same connection may have no answer either.
fn is_lost(error: &RedisError) -> bool {
    let is_answer = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
    !is_answer || error.is_unrecoverable_error()
}

/// TLS with the authorities that the system trusts.
fn tls() -> Result<ClientConfig, RedisError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

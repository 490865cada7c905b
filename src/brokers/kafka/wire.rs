//! One connection to a Kafka broker: mutual TLS, and requests in negotiated versions (KIP-35).

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use rustls::client::Resumption;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::answer::{Question, Versions};
use super::error::{CredentialError, request_name};
use super::reader::{Malformed, Reader};
use crate::api::Reason;
use crate::brokers::BrokerFailure;
use crate::domain::address_policy::AddressPolicy;
use crate::domain::defect;
use crate::domain::secret::SecretText;
use crate::network::{self, Pieces};
use crate::stalls::by_length;

/// How long connecting and the TLS handshake may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Called for every request to the broker, with its name and whether it was answered.
pub type OnRequest = Arc<dyn Fn(&str, bool) + Send + Sync>;

/// An open connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    server: String,
    next_id: i32,
    versions: Versions,
    answer_timeout: Duration,
    on_request: Option<OnRequest>,
}

/// How a client connects: its TLS configuration, and to which addresses.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    addresses: AddressPolicy,
}

impl Client {
    /// A client with a credential, from PEM texts.
    ///
    /// # Errors
    /// The text that cannot be used.
    pub fn new(
        chain_pem: &str,
        key: &SecretText,
        ca_pem: &str,
        addresses: &AddressPolicy,
    ) -> Result<Self, CredentialError> {
        Ok(Self { tls: tls(chain_pem, key, ca_pem)?, addresses: addresses.clone() })
    }
}

fn tls(chain_pem: &str, key: &SecretText, ca_pem: &str) -> Result<Arc<ClientConfig>, CredentialError> {
    let read = |pem: &str, entry: &'static str| -> Result<Vec<CertificateDer<'static>>, CredentialError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            _ => Err(CredentialError::NoCertificate { entry }),
        }
    };
    let mut roots = RootCertStore::empty();
    for root in read(ca_pem, "ca.crt")? {
        roots.add(root).map_err(CredentialError::Root)?;
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| CredentialError::NoKey)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CredentialError::Tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(read(chain_pem, "tls.crt")?, key)
        .map_err(CredentialError::KeyMismatch)?;
    // A broker that resumes a TLS session does not verify the certificate again, even when it has expired.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

impl Connection {
    /// Connects to the first server that answers. `remedy` is the next step in the message when the certificate is refused.
    /// The request at the end is needed: with TLS 1.3, the refusal of a client certificate arrives with the first read.
    ///
    /// # Errors
    /// The failure of the last server.
    pub async fn open(servers: &[String], client: &Client, remedy: &str) -> Result<Self, BrokerFailure> {
        let mut last = BrokerFailure {
            reason: Reason::BrokerUnreachable,
            message: "bootstrapServers is empty; name at least one server".to_owned(),
        };
        for server in servers {
            match Self::open_one(server, client).await {
                Ok(connection) => return Ok(connection),
                Err(failure) if failure.reason == Reason::LoginRefused => {
                    last = BrokerFailure { message: format!("{}; {remedy}", failure.message), ..failure };
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn open_one(server: &str, client: &Client) -> Result<Self, BrokerFailure> {
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| unreachable(server, "the host is neither a DNS name nor an IP address"))?;
        let handshake = async {
            let socket =
                network::connect(server, &client.addresses).await.map_err(|error| not_connected(server, &error))?;
            TlsConnector::from(client.tls.clone()).connect(name, socket).await.map_err(|error| refused(server, &error))
        };
        let stream = timeout(CONNECT_TIMEOUT, handshake)
            .await
            .map_err(|_| unreachable(server, &format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))??;
        let server = server.to_owned();
        let mut connection = Self {
            stream,
            server,
            next_id: 0,
            versions: Versions::new(),
            answer_timeout: ANSWER_TIMEOUT,
            on_request: None,
        };
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("credence"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        connection.versions = connection.exchange(&request, ApiVersionsRequest::SENT_IN.1).await?;
        Ok(connection)
    }

    /// Reports every request from now on.
    pub fn with_observer(self, on_request: OnRequest) -> Self {
        Self { on_request: Some(on_request), ..self }
    }

    /// Sets how long every answer may take from now on.
    pub fn with_answer_timeout(self, answer_timeout: Duration) -> Self {
        Self { answer_timeout, ..self }
    }

    /// The server at the other end, as it was given.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends a request in the newest version that both sides support, and waits for its answer.
    ///
    /// # Errors
    /// When the connection fails, or the broker does not support the request. The connection cannot be used any more then.
    pub async fn call<Q: Question>(&mut self, request: &Q) -> Result<Q::Answer, BrokerFailure> {
        let (first, last) = Q::SENT_IN;
        let known = self.versions.get(&Q::KEY);
        let version = known.map(|(oldest, newest)| (first.max(*oldest), last.min(*newest)));
        let version =
            version.filter(|(oldest, newest)| oldest <= newest).map(|(_, newest)| newest).ok_or_else(|| {
                let cause =
                    format!("the broker does not support the request {}; Kafka 2.8 or newer is needed", name::<Q>());
                self.broken(&cause)
            })?;
        let answer = self.exchange(request, version).await;
        if let Some(on_request) = &self.on_request {
            on_request(name::<Q>(), answer.is_ok());
        }
        answer
    }

    async fn exchange<Q: Question>(&mut self, request: &Q, version: i16) -> Result<Q::Answer, BrokerFailure> {
        let limit = self.answer_timeout;
        timeout(limit, self.exchange_now(request, version))
            .await
            .map_err(|_| unreachable(&self.server, &format!("no answer within {} s", limit.as_secs())))?
    }

    async fn exchange_now<Q: Question>(&mut self, request: &Q, version: i16) -> Result<Q::Answer, BrokerFailure> {
        self.next_id = self.next_id.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next_id)
            .with_client_id(Some(StrBytes::from_static_str("credence")));
        let mut body = BytesMut::new();
        header
            .encode(&mut body, Q::header_version(version))
            .and_then(|()| request.encode(&mut body, version))
            .map_err(|_| self.broken("the request cannot be encoded for this version of the broker"))?;
        let length = i32::try_from(body.len()).map_err(|_| self.broken("the request is too large"))?;
        let mut frame = BytesMut::with_capacity(body.len() + 4);
        frame.put_i32(length);
        frame.extend_from_slice(&body);
        let server = self.server.clone();
        let lost = |error: std::io::Error| refused(&server, &error);
        self.stream.write_all(&frame).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;

        let size = self.stream.read_i32().await.map_err(lost)?;
        let length = u64::try_from(size).ok().filter(|size| *size <= Q::MAX_ANSWER as u64);
        let length = length.ok_or_else(|| {
            self.broken(&format!(
                "the answer to {} has {size} bytes, and at most {} are read",
                name::<Q>(),
                Q::MAX_ANSWER
            ))
        })?;
        let answer = Pieces::read((&mut self.stream).take(length)).await.map_err(lost)?;
        if (answer.length() as u64) < length {
            return Err(lost(ErrorKind::UnexpectedEof.into()));
        }
        let id = self.next_id;
        by_length(answer.length(), move || read::<Q>(&answer.join(), id, version))
            .await
            .map_err(|error| self.broken(&format!("cannot read the answer to {}: {error}", name::<Q>())))?
            .ok_or_else(|| self.broken("the answer belongs to another request"))
    }

    fn broken(&self, cause: &str) -> BrokerFailure {
        BrokerFailure { reason: Reason::BrokerUnreachable, message: format!("Kafka at {}: {cause}", self.server) }
    }
}

/// Reads the answer to the request with this ID; `None` when it belongs to another one.
fn read<Q: Question>(answer: &[u8], id: i32, version: i16) -> Result<Option<Q::Answer>, Malformed> {
    let mut reader = Reader::new(answer);
    if reader.i32()? != id {
        return Ok(None);
    }
    if Q::Response::header_version(version) > 0 {
        reader.tags()?;
    }
    let answer = Q::read(&mut reader)?;
    reader.end()?;
    Ok(Some(answer))
}

/// The name of a request.
fn name<Q: Request>() -> &'static str {
    ApiKey::try_from(Q::KEY).map_or("Other", request_name)
}

fn unreachable(server: &str, cause: &str) -> BrokerFailure {
    BrokerFailure {
        reason: Reason::BrokerUnreachable,
        message: format!("Kafka at {server} cannot be reached: {cause}; retrying"),
    }
}

fn not_connected(server: &str, error: &std::io::Error) -> BrokerFailure {
    match network::refusal(error) {
        Some(why) => BrokerFailure {
            reason: Reason::AddressRefused,
            message: format!(
                "the address of Kafka at {server} is refused: {why}; name a server with another address in \
                 bootstrapServers and in advertised.listeners of the brokers"
            ),
        },
        None => unreachable(server, defect::of_connection(error)),
    }
}

/// Distinguishes a refused certificate, which a person has to correct, from a lost connection, which is retried.
fn refused(server: &str, error: &std::io::Error) -> BrokerFailure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => BrokerFailure {
            reason: Reason::LoginRefused,
            message: format!("Kafka at {server} refused the client certificate (TLS alert {})", alert_name(*alert)),
        },
        Some(rustls::Error::InvalidCertificate(error)) => BrokerFailure {
            reason: Reason::BrokerRefused,
            message: format!(
                "the certificate of Kafka at {server} does not verify: {}; ca.crt must hold the root of its authority, and \
                 the certificate must be valid for the host in bootstrapServers",
                defect::of_certificate(error)
            ),
        },
        Some(other) => BrokerFailure {
            reason: Reason::BrokerUnreachable,
            message: format!("TLS with Kafka at {server} failed: {}; retrying", defect::of_tls(other)),
        },
        None => unreachable(server, defect::of_connection(error)),
    }
}

/// The name of a TLS alert (RFC 8446 section 6), or its number.
fn alert_name(alert: AlertDescription) -> String {
    alert.as_str().map_or_else(|| u8::from(alert).to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_has_its_name_or_its_number() {
        assert_eq!(alert_name(AlertDescription::BadCertificate), "BadCertificate");
        assert_eq!(alert_name(AlertDescription::Unknown(200)), "200");
    }
}

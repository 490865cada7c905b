//! A destination outside of the cluster: reached over TLS, at the host in its URL and no other, and only at addresses that the policy
//! allows.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::SignedDuration;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::{Semaphore, SemaphorePermit};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::retry::{Answer, LogThrottle, RetryPolicy};
use crate::api::DestinationTarget;
use crate::domain::address_policy::AddressPolicy;
use crate::domain::invalid_field::InvalidField;
use crate::domain::schedule::duration;
use crate::domain::text::foreign;
use crate::edge::webhook::outcome::Reason;
use crate::network::bounded::BoundedConnector;
use crate::network::causes;
use crate::network::http::{PolicyConnector, authorities, public_web};

/// Maximum number of deliveries on the way to one destination: a destination that hangs must not use up what others need.
const MAX_CONCURRENT: usize = 64;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A destination, with its connections.
pub struct Destination {
    /// Its URL without the query, which may hold a secret.
    pub audience: String,
    /// How often it is tried.
    pub retry: RetryPolicy,
    url: Uri,
    client: Client<HttpsConnector<BoundedConnector>, Full<Bytes>>,
    slots: Semaphore,
    log_throttle: LogThrottle,
}

impl Destination {
    /// Compiles the target of a destination.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn compile(target: &DestinationTarget, policy: &AddressPolicy) -> Result<Self, InvalidField> {
        let DestinationTarget { url, public_keys, ca_bundle, timeout, attempts, backoff } = target;
        let uri: Uri = url.parse().map_err(|_| InvalidField::new("target.url", format!("{url} is not a URL")))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        ServerName::try_from(host)
            .map_err(|_| InvalidField::new("target.url", format!("{url} names no host that a certificate can have")))?;
        let tls = tls(public_keys, ca_bundle.as_deref())?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector.wrap_connector(BoundedConnector(PolicyConnector::new(policy.clone()))));
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let longest = duration("target.timeout", timeout.as_deref(), SignedDuration::from_secs(10))?;
        let pause = duration("target.backoff", backoff.as_deref(), SignedDuration::from_secs(1))?;
        Ok(Self {
            audience: format!("https://{authority}{}", uri.path()),
            retry: RetryPolicy {
                timeout: longest.unsigned_abs(),
                attempts: attempts.unwrap_or(5),
                pause: pause.unsigned_abs(),
                max_pause: MAX_PAUSE,
            },
            url: uri,
            client,
            slots: Semaphore::new(MAX_CONCURRENT),
            log_throttle: LogThrottle::default(),
        })
    }

    /// A slot for one delivery; `None` while all are taken.
    pub fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.try_acquire().ok()
    }

    /// Makes one attempt.
    pub async fn attempt(&self, headers: HeaderMap, body: Bytes) -> Answer {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        match self.client.request(request).await {
            Err(error) => {
                let (answer, cause) = failed(&error);
                if self.log_throttle.is_due() {
                    let reason = answer.reason.as_str();
                    let error = foreign(cause);
                    tracing::warn!(destination = self.audience, reason, %error, "failed to reach a destination");
                }
                answer
            }
            Ok(answer) => {
                let status = answer.status();
                let why = if status.is_success() { Reason::Delivered } else { Reason::TargetRefused };
                Answer { reason: why, status: Some(status.as_u16()), is_retryable: is_retryable(status) }
            }
        }
    }
}

/// Whether the destination may accept the same delivery later.
fn is_retryable(status: StatusCode) -> bool {
    const RETRY_LATER: [StatusCode; 3] =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_server_error() || RETRY_LATER.contains(&status)
}

/// What a failed connection means, and its cause. An address or a certificate that is refused now is refused at a retry as well.
fn failed(error: &(dyn Error + 'static)) -> (Answer, String) {
    let mut last = error;
    for cause in causes(error) {
        if let Some(rustls::Error::InvalidCertificate(why)) = cause.downcast_ref() {
            return (Answer::permanent(Reason::TargetUntrusted, None), why.to_string());
        }
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return (Answer::permanent(Reason::AddressRefused, None), cause.to_string());
        }
        last = cause;
    }
    (Answer::retryable(Reason::TargetUnreachable), last.to_string())
}

fn tls(public_keys: &[String], ca_bundle: Option<&str>) -> Result<ClientConfig, InvalidField> {
    let roots = ca_bundle.map_or_else(|| Ok(public_web()), |pem| authorities("target.caBundle", pem))?;
    let chain = WebPkiServerVerifier::builder(roots)
        .build()
        .map_err(|_| InvalidField::new("target.caBundle", "there is no certificate in it; write authorities in PEM"))?;
    let keys = public_keys.iter().map(|key| digest_of(key)).collect::<Result<_, _>>()?;
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { chain, keys }))
        .with_no_client_auth();
    // A resumed session does not present its certificate again, even if that has expired or was replaced.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn digest_of(key: &str) -> Result<[u8; 32], InvalidField> {
    let bytes = STANDARD.decode(key).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| InvalidField::new("target.publicKeys", format!("{key} is not the base64 of a SHA-256")))
}

/// Verifies chain, host and validity, and then that the public key of the certificate is one of the pinned ones, if there are any.
#[derive(Debug)]
struct Pinned {
    chain: Arc<WebPkiServerVerifier>,
    /// SHA-256 of each `SubjectPublicKeyInfo`.
    keys: Vec<[u8; 32]>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if self.keys.is_empty() {
            return Ok(verified);
        }
        let (_, certificate) = X509Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let key = digest(&SHA256, certificate.public_key().raw);
        let is_pinned = self.keys.iter().any(|pinned| pinned == key.as_ref());
        if is_pinned { Ok(verified) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, passing) in [(400, false), (403, false), (404, false), (408, true), (410, false), (425, true)] {
            assert_eq!(is_retryable(StatusCode::from_u16(status).unwrap()), passing, "{status}");
        }
        for (status, passing) in [(301, false), (429, true), (500, true), (502, true), (503, true), (504, true)] {
            assert_eq!(is_retryable(StatusCode::from_u16(status).unwrap()), passing, "{status}");
        }
    }
}

//! The edge's certificate: read from its Secret, and replaced without a restart and without breaking a connection.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names::CertificateNames;
use crate::domain::defect;

/// Why the content of the certificate Secret cannot be used. Nothing of an entry is repeated.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// An entry is not PEM.
    #[error("{entry}: {defect}")]
    Pem {
        /// The entry of the Secret.
        entry: &'static str,
        /// What is wrong.
        defect: &'static str,
    },
    /// There is no certificate.
    #[error("tls.crt: there is no certificate in it")]
    Empty,
    /// The certificate is not that of a workload.
    #[error("tls.crt: the certificate has no SPIFFE ID to sign assertions as")]
    NoSpiffeId,
    /// An authority is refused.
    #[error("ca.crt: a certificate cannot be a root: {}", defect::of_tls(.0))]
    Authority(rustls::Error),
    /// There are no authorities.
    #[error("ca.crt: there is no certificate in it")]
    Authorities(VerifierBuilderError),
    /// Certificate and key do not belong together.
    #[error("tls.crt and tls.key do not fit together: {}", defect::of_tls(.0))]
    Pair(rustls::Error),
    /// The key is of a kind that the edge cannot sign with.
    #[error("tls.key: the key must be ECDSA P-256 or Ed25519 to sign assertions")]
    SigningKey,
}

/// A certificate with its key, and the authorities that peers' certificates may chain to.
pub struct LoadedCertificate {
    /// The chain, the edge's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The SPIFFE ID in the certificate.
    pub spiffe_id: String,
    /// When the first certificate of the chain expires, in seconds since 1970.
    pub expires_at: i64,
    authorities: RootCertStore,
}

impl LoadedCertificate {
    /// Reads the entries `tls.crt`, `tls.key` and `ca.crt` of a Secret.
    ///
    /// # Errors
    /// Names the entry that cannot be used.
    pub fn parse(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Self, CertificateError> {
        let chain = certificates("tls.crt", chain)?;
        let expires_at = chain.iter().filter_map(expires_at).min().ok_or(CertificateError::Empty)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| not_pem("tls.key", &error))?;
        let spiffe_id = CertificateNames::of(&chain[0]).spiffe_id.ok_or(CertificateError::NoSpiffeId)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca.crt", authorities)? {
            roots.add(authority).map_err(CertificateError::Authority)?;
        }
        Ok(Self { chain, key, spiffe_id, expires_at, authorities: roots })
    }
}

fn certificates(entry: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| not_pem(entry, &error))
}

fn not_pem(entry: &'static str, error: &pem::Error) -> CertificateError {
    CertificateError::Pem { entry, defect: defect::of_pem(error) }
}

fn expires_at(certificate: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate.validity.not_after.timestamp())
}

/// The certificate that peers are shown; none until its Secret was read.
#[derive(Default)]
pub struct TlsCertificate(ArcSwapOption<ServerConfig>);

impl TlsCertificate {
    /// What handshakes use now.
    pub(super) fn load(&self) -> Option<Arc<ServerConfig>> {
        self.0.load_full()
    }

    /// Uses a certificate for the handshakes from now on.
    ///
    /// # Errors
    /// When it cannot be used; handshakes go on with the former one.
    pub(super) fn install(&self, loaded: &LoadedCertificate, alpn: &[&[u8]]) -> Result<(), CertificateError> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(loaded.authorities.clone()))
            .allow_unauthenticated()
            .build()
            .map_err(CertificateError::Authorities)?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(loaded.chain.clone(), loaded.key.clone_key())
            .map_err(CertificateError::Pair)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        self.0.store(Some(Arc::new(config)));
        Ok(())
    }
}

/// Follows the certificate Secret, and hands every certificate in it to `install`. Calls `installed` after each one in use.
pub async fn follow(
    events: impl Stream<Item = Event<Secret>>,
    install: impl Fn(&LoadedCertificate) -> Result<(), CertificateError>,
    installed: impl Fn(),
) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        let (Event::Apply(secret) | Event::InitApply(secret)) = event else { continue };
        let entry = |name| secret.data.as_ref().and_then(|data| data.get(name)).map(|entry| entry.0.as_slice());
        let entry = |name| entry(name).unwrap_or_default();
        let loaded = LoadedCertificate::parse(entry("tls.crt"), entry("tls.key"), entry("ca.crt"));
        match loaded.and_then(|loaded| install(&loaded)) {
            Ok(()) => {
                tracing::info!(secret = secret.name_any(), "certificate loaded");
                installed();
            }
            Err(error) => tracing::error!(secret = secret.name_any(), %error, "invalid certificate; not using it"),
        }
    }
}

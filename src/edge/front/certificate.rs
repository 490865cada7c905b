//! The edge's certificate: read from its Secret, and replaced without a restart and without breaking a connection.

use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::authorities::{Authorities, InvalidAuthorities};
use super::names::{CertificateNames, not_after};
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
    /// The authorities cannot be used.
    #[error("ca.crt: {0}")]
    Authorities(#[from] InvalidAuthorities),
    /// Certificate and key do not belong together, or cannot be used for TLS.
    #[error("tls.crt and tls.key do not fit together: {}", defect::of_tls(.0))]
    Pair(rustls::Error),
    /// The key is of a kind that the edge cannot sign with.
    #[error("tls.key: the key must be ECDSA P-256 or Ed25519 to sign assertions")]
    SigningKey,
}

/// The edge's own certificate with its key, and the authorities of its trust domain.
pub struct LoadedCertificate {
    /// The chain, the edge's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The SPIFFE ID in the certificate.
    pub spiffe_id: String,
    /// When the first certificate of the chain expires, in seconds since 1970.
    pub expires_at: i64,
    /// The authorities that vouch for SPIFFE IDs.
    pub authorities: Arc<Authorities>,
}

impl LoadedCertificate {
    /// Reads the entries `tls.crt`, `tls.key` and `ca.crt` of a Secret.
    ///
    /// # Errors
    /// Names the entry that cannot be used.
    pub fn parse(chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<Self, CertificateError> {
        let (chain, expires_at) = read_chain(chain)?;
        let key = read_key(key)?;
        let spiffe_id = CertificateNames::of(&chain[0]).spiffe_id.ok_or(CertificateError::NoSpiffeId)?;
        let authorities = Arc::new(Authorities::parse(authorities, usize::MAX)?);
        Ok(Self { chain, key, spiffe_id, expires_at, authorities })
    }
}

/// The certificates of `tls.crt`, at least one, and when the first of them expires, in seconds since 1970.
pub(super) fn read_chain(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, i64), CertificateError> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| not_pem("tls.crt", &error))?;
    let expires_at = chain.iter().filter_map(not_after).min().ok_or(CertificateError::Empty)?;
    Ok((chain, expires_at))
}

/// The private key of `tls.key`.
pub(super) fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| not_pem("tls.key", &error))
}

fn not_pem(entry: &'static str, error: &pem::Error) -> CertificateError {
    CertificateError::Pem { entry, defect: defect::of_pem(error) }
}

/// An entry of a Secret; empty when there is none.
pub(super) fn entry<'a>(secret: &'a Secret, name: &str) -> &'a [u8] {
    let entry = secret.data.as_ref().and_then(|data| data.get(name));
    entry.map(|entry| entry.0.as_slice()).unwrap_or_default()
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
        let [chain, key, authorities] = ["tls.crt", "tls.key", "ca.crt"].map(|name| entry(&secret, name));
        let loaded = LoadedCertificate::parse(chain, key, authorities);
        match loaded.and_then(|loaded| install(&loaded)) {
            Ok(()) => {
                tracing::info!(secret = secret.name_any(), "certificate loaded");
                installed();
            }
            Err(error) => tracing::error!(secret = secret.name_any(), %error, "invalid certificate; not using it"),
        }
    }
}

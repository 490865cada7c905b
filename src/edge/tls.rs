//! The certificate of the edge, from its Secret: taken up without a restart, and without a broken connection.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::assertion::Signer;
use super::source::CallerNames;

/// What a handshake calls HTTP/2. Whatever else it settles is HTTP/1.1.
pub const HTTP2: &[u8] = b"h2";

/// What the edge shows callers and signs assertions with; nothing before its Secret is there.
#[derive(Default)]
pub struct Credentials {
    /// For TLS.
    pub tls: ArcSwapOption<ServerConfig>,
    /// For assertions.
    pub signer: ArcSwapOption<Signer>,
}

impl Credentials {
    /// Takes up a certificate with its key, and the authorities that client certificates may chain to. Returns when the first
    /// certificate of the chain expires, in seconds since 1970.
    ///
    /// # Errors
    /// Says what is wrong; what was in force stays so.
    pub fn take(&self, chain: &[u8], key: &[u8], authorities: &[u8]) -> Result<i64, String> {
        let chain = certificates("tls.crt", chain)?;
        let expiry = chain.iter().filter_map(expiry).min().ok_or("tls.crt: there is no certificate in it")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.key: {error}"))?;
        let issuer = names(&chain[0]).spiffe_id.ok_or("tls.crt: it has no SPIFFE ID to sign assertions as")?;
        let signer = Signer::new(&chain, &key, issuer)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca.crt", authorities)? {
            roots.add(authority).map_err(|error| format!("ca.crt: {error}"))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
            .allow_unauthenticated()
            .build()
            .map_err(|error| format!("ca.crt: {error}"))?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| format!("tls.crt and tls.key: {error}"))?;
        config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        self.tls.store(Some(Arc::new(config)));
        self.signer.store(Some(Arc::new(signer)));
        Ok(expiry)
    }
}

fn certificates(entry: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| format!("{entry}: {error}"))
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, certificate)| certificate.validity.not_after.timestamp())
}

/// The names in a certificate that TLS has verified.
#[must_use]
pub fn names(certificate: &CertificateDer<'_>) -> CallerNames {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return CallerNames::default() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return CallerNames::default() };
    let mut uris = Vec::new();
    let mut dns_names = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns_names.push(name.to_ascii_lowercase()),
            _ => {}
        }
    }
    // Exactly one, or the certificate is no SVID (X509-SVID section 2).
    let spiffe_id = match uris.as_slice() {
        [uri] if uri.starts_with("spiffe://") => Some((*uri).to_owned()),
        _ => None,
    };
    CallerNames { spiffe_id, dns_names }
}

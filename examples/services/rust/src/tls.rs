//! TLS with the PEM files of a ServiceIdentity.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::Fallible;

/// TLS with services that call this one.
pub fn from_services(identity: &Path) -> Fallible<ServerConfig> {
    let authorities = Arc::new(authorities(&identity.join("ca.crt"))?);
    let callers = WebPkiClientVerifier::builder(authorities).build()?;
    let (chain, key) = certificate(identity)?;
    Ok(ServerConfig::builder().with_client_cert_verifier(callers).with_single_cert(chain, key)?)
}

/// TLS to the issuer, which is known by its host, with the certificate of this service or with none.
pub fn to_issuer(issuer_authorities: &Path, identity: Option<&Path>) -> Fallible<ClientConfig> {
    let builder = ClientConfig::builder().with_root_certificates(authorities(issuer_authorities)?);
    Ok(match identity.map(certificate).transpose()? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    })
}

/// TLS to a service, which is known by its SPIFFE ID, on any host.
pub fn to_service(identity: &Path, spiffe_id: &str) -> Fallible<ClientConfig> {
    let callee = Callee {
        spiffe_id: spiffe_id.to_owned(),
        authorities: authorities(&identity.join("ca.crt"))?,
        algorithms: rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms,
    };
    let (chain, key) = certificate(identity)?;
    let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(callee));
    Ok(builder.with_client_auth_cert(chain, key)?)
}

/// The SPIFFE ID of a peer whose chain was verified.
pub fn peer(chain: Option<&[CertificateDer<'_>]>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(chain?.first()?).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let ids: Vec<&str> =
        names.iter().filter_map(|name| if let GeneralName::URI(id) = name { Some(*id) } else { None }).collect();
    if let [id] = ids[..] { Some(id.to_owned()) } else { None }
}

/// The digest of the certificate of a peer, which a token may be bound to (RFC 8705 section 3.1).
pub fn thumbprint(chain: Option<&[CertificateDer<'_>]>) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, chain?.first()?)))
}

fn certificate(identity: &Path) -> Fallible<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_file_iter(identity.join("tls.crt"))?.collect::<Result<_, _>>()?;
    Ok((chain, PrivateKeyDer::from_pem_file(identity.join("tls.key"))?))
}

fn authorities(path: &Path) -> Fallible<RootCertStore> {
    let mut store = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(path)? {
        store.add(authority?)?;
    }
    Ok(store)
}

/// Verifies the chain of a service and its SPIFFE ID. The verifier of rustls would verify the host.
#[derive(Debug)]
struct Callee {
    spiffe_id: String,
    authorities: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Callee {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.authorities, intermediates, now, self.algorithms.all)?;
        match peer(Some(std::slice::from_ref(certificate))) {
            Some(callee) if callee == self.spiffe_id => Ok(ServerCertVerified::assertion()),
            Some(callee) => Err(rustls::Error::General(format!("the service is {callee}"))),
            None => Err(rustls::Error::General("the certificate has no SPIFFE ID".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

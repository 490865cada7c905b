//! Client certificates in the handshake: that the peer has the key of the certificate it presents, and nothing else.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::names::not_after;

/// Maximum number of certificates that a peer may present: its own, the intermediates that a path may have (6), and a root.
const MAX_CHAIN: usize = 8;
/// Maximum size of these together, in bytes. They stay in memory as long as the connection, twice.
const MAX_CHAIN_BYTES: usize = 12 << 10;

/// Asks for a certificate, and takes any: it judges no chain. A certificate that has expired is refused, because its connection
/// would have to end at once.
#[derive(Debug)]
pub struct Possession(WebPkiSupportedAlgorithms);

impl Possession {
    /// A verifier with the algorithms of a provider.
    pub fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: which authorities count depends on the route, so the peer chooses freely.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let size = intermediates.iter().fold(end_entity.len(), |size, certificate| size + certificate.len());
        if intermediates.len() >= MAX_CHAIN || size > MAX_CHAIN_BYTES {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let ends = not_after(end_entity).ok_or(CertificateError::BadEncoding)?;
        if i64::try_from(now.as_secs()).is_ok_and(|now| now <= ends) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::Expired.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

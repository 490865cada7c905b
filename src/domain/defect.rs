//! What is wrong with certificates, keys, texts and connections, in words of our own. The messages of libraries quote what they read,
//! which may be a key or the words of a peer, and some are different at every attempt.

use std::io;

use rustls::CertificateError;
use rustls_pki_types::pem;

/// The defect of a text in PEM (RFC 7468).
#[must_use]
pub fn of_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "not PEM: a section has no END line",
        pem::Error::IllegalSectionStart { .. } => "not PEM: a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "not PEM: a section is not valid Base64",
        pem::Error::SectionTooLarge => "not PEM: a section is too large",
        pem::Error::NoItemsFound => "not PEM: it holds no section of the kind that is needed",
        _ => "not PEM: it cannot be read",
    }
}

/// The defect of a certificate that was verified.
#[must_use]
pub fn of_certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer => "no trusted authority has issued it",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::BadSignature => "its signature is wrong",
        CertificateError::BadEncoding => "it is malformed",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage does not allow this use"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its subjectAltName does not name this host"
        }
        CertificateError::ApplicationVerificationFailure => "its public key is not one of those that are pinned",
        _ => "its chain is not acceptable",
    }
}

/// The defect of a TLS handshake, or of a certificate or key for one.
#[must_use]
pub fn of_tls(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::InconsistentKeys(_) => "the private key does not belong to the certificate",
        rustls::Error::NoCertificatesPresented => "there is no certificate",
        rustls::Error::AlertReceived(_) => "the peer ended the handshake with an alert",
        rustls::Error::PeerIncompatible(_) => "the peer supports no version or algorithm that is allowed here",
        rustls::Error::PeerMisbehaved(_)
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::PeerSentOversizedRecord
        | rustls::Error::DecryptError => "the peer does not follow the protocol",
        _ => "the certificate, the key or the peer is not acceptable",
    }
}

/// Why a connection failed.
#[must_use]
pub fn of_connection(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection is refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            "the connection is reset"
        }
        io::ErrorKind::UnexpectedEof => "the server closed the connection",
        io::ErrorKind::TimedOut => "the connection timed out",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            "there is no route to the host"
        }
        io::ErrorKind::PermissionDenied => "the connection is not permitted",
        _ => "the connection failed",
    }
}

/// The defect of a JSON text: what kind, and where it was found.
#[must_use]
pub fn of_json(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a member is missing, or has a value of the wrong type or form",
        serde_json::error::Category::Eof => "the text ends too early",
        serde_json::error::Category::Syntax => "the text is not JSON",
        serde_json::error::Category::Io => "the text cannot be read",
    };
    match error.line() {
        0 => kind.to_owned(),
        line => format!("{kind} (line {line}, column {})", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_of_json_has_its_kind_and_place_and_no_value() {
        for (text, wanted) in [
            (r#"{"a": "hidden"}"#, "a member is missing, or has a value of the wrong type or form (line 1, column 14)"),
            (r#"{"hidden": 1"#, "the text ends too early (line 1, column 12)"),
            ("hidden", "the text is not JSON (line 1, column 1)"),
        ] {
            let error = serde_json::from_str::<std::collections::BTreeMap<String, u8>>(text).unwrap_err();
            assert_eq!(of_json(&error), wanted);
        }
    }
}

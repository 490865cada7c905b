//! The source policy of a webhook, compiled from its spec.

use std::sync::Arc;

use crate::api::{ClientCertificatePin, WebhookSource};
use crate::domain::invalid_field::InvalidField;
use crate::domain::network::Network;
use crate::edge::front::Authorities;
use crate::edge::http::source::{CertificatePolicy, SourcePolicy};

/// Maximum number of certificates in `source.clientCertificate.caBundle`.
const MAX_AUTHORITIES: usize = 64;

/// Compiles the conditions of a source on address and certificate.
///
/// # Errors
/// Names the field that is invalid.
pub fn compile(source: Option<&WebhookSource>) -> Result<SourcePolicy, InvalidField> {
    let Some(source) = source else { return Ok(SourcePolicy::default()) };
    let networks = |field: &str, texts: &[String]| {
        let read = |text: &String| text.parse::<Network>().map_err(|error| InvalidField::new(field, error.to_string()));
        texts.iter().map(read).collect::<Result<Vec<_>, _>>()
    };
    Ok(SourcePolicy {
        certificates: source.client_certificate.as_ref().map(certificates).transpose()?,
        networks: networks("source.cidrs", &source.cidrs)?,
        trusted_proxies: networks("source.trustedProxies", &source.trusted_proxies)?,
    })
}

fn certificates(pin: &ClientCertificatePin) -> Result<CertificatePolicy, InvalidField> {
    let ClientCertificatePin { spiffe_ids, dns_names, ca_bundle } = pin.clone();
    let authorities = ca_bundle.map(|pem| Authorities::parse(pem.as_bytes(), MAX_AUTHORITIES)).transpose();
    let authorities =
        authorities.map_err(|error| InvalidField::new("source.clientCertificate.caBundle", error.to_string()))?;
    Ok(CertificatePolicy { spiffe_ids, dns_names, dns_authorities: authorities.map(Arc::new) })
}

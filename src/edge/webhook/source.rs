//! The source policy of a webhook, compiled from its spec.

use crate::api::WebhookSource;
use crate::domain::invalid_field::InvalidField;
use crate::domain::network::Network;
use crate::edge::http::source::SourcePolicy;

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
    let certificate = source.client_certificate.clone().unwrap_or_default();
    Ok(SourcePolicy {
        spiffe_ids: certificate.spiffe_ids,
        dns_names: certificate.dns_names,
        networks: networks("source.cidrs", &source.cidrs)?,
        trusted_proxies: networks("source.trustedProxies", &source.trusted_proxies)?,
    })
}

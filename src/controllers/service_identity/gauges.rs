//! Counts certificates by trust domain, for the metrics. Reads stores only.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::controller::Controller;
use crate::api::ServiceIdentity;
use crate::metrics::CertificateFigures;

/// The figures of all trust domains.
pub fn certificates(controller: &Controller, now: Timestamp) -> BTreeMap<String, CertificateFigures> {
    let mut figures: BTreeMap<String, CertificateFigures> = BTreeMap::new();
    for domain in controller.trust_domains.store().valid(None) {
        let authority = domain.status.as_ref().and_then(|status| status.authority.as_ref());
        let authority_expiry =
            authority.and_then(|authority| authority.not_after.as_ref()).map(|time| time.0.as_second());
        let name = domain.metadata.name.clone().unwrap_or_default();
        figures.insert(name, CertificateFigures { authority_expiry, ..CertificateFigures::default() });
    }
    let earlier = |known: Option<i64>, new: i64| Some(known.map_or(new, |known| known.min(new)));
    for identity in controller.handle.store().valid(None) {
        let ServiceIdentity { spec, status: Some(status), .. } = &identity else { continue };
        let Some(figures) = figures.get_mut(&spec.trust_domain) else { continue };
        let accounts = status.brokers.iter().filter_map(|account| account.certificate.as_ref());
        for certificate in status.certificate.iter().chain(accounts) {
            if let Some(expiry) = &certificate.not_after {
                figures.earliest_expiry = earlier(figures.earliest_expiry, expiry.0.as_second());
            }
            if let Some(issued) = &certificate.issued_at {
                figures.oldest_issue = earlier(figures.oldest_issue, issued.0.as_second());
            }
            figures.overdue += u32::from(certificate.renew_at.as_ref().is_some_and(|at| at.0 < now));
        }
    }
    figures
}

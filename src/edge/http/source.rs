//! Which callers are allowed, by address and certificate. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;

use super::caller::Caller;
use crate::domain::network::Network;
use crate::edge::front::{Authorities, ClientCertificate};

/// Which callers are allowed. Every condition that is set must hold; without any, everybody is allowed.
#[derive(Default)]
pub struct SourcePolicy {
    /// Which certificates are allowed.
    pub certificates: Option<CertificatePolicy>,
    /// Networks that the caller's address must be in.
    pub networks: Vec<Network>,
    /// Networks of the proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
}

/// Which certificates are allowed: one matching name is enough.
#[derive(Default)]
pub struct CertificatePolicy {
    /// SPIFFE IDs, for which the authorities of the trust domain have to vouch.
    pub spiffe_ids: Vec<String>,
    /// DNS names, in lower case.
    pub dns_names: Vec<String>,
    /// The authorities that have to vouch for DNS names; without any, those of the trust domain.
    pub dns_authorities: Option<Arc<Authorities>>,
}

/// What a caller's certificate proves to one policy: names for which the authorities of that policy vouch, and no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProvenNames<'a> {
    spiffe_id: Option<&'a str>,
    dns_names: &'a [String],
}

impl<'a> ProvenNames<'a> {
    /// The identity for the audit log: the SPIFFE ID, or else the first DNS name.
    #[must_use]
    pub fn identity(&self) -> Option<&'a str> {
        self.spiffe_id.or_else(|| self.dns_names.first().map(String::as_str))
    }
}

impl CertificatePolicy {
    /// A SPIFFE ID counts for every policy that does not ask for DNS names only: it says who calls.
    fn prove<'a>(
        &self,
        certificate: &'a ClientCertificate,
        trust_domain: Option<&Authorities>,
        now: Timestamp,
    ) -> ProvenNames<'a> {
        let domain = || trust_domain.and_then(|authorities| certificate.names_by(authorities, now));
        let spiffe_id = || domain()?.spiffe_id.as_deref();
        let dns_names = match &self.dns_authorities {
            _ if self.dns_names.is_empty() => None,
            Some(authorities) => certificate.names_by(authorities, now),
            None => domain(),
        };
        let only_dns_names = self.spiffe_ids.is_empty() && self.dns_authorities.is_some();
        ProvenNames {
            spiffe_id: if only_dns_names { None } else { spiffe_id() },
            dns_names: dns_names.map(|names| names.dns_names.as_slice()).unwrap_or_default(),
        }
    }

    fn admits(&self, proven: &ProvenNames<'_>) -> bool {
        proven.spiffe_id.is_some_and(|id| self.spiffe_ids.iter().any(|allowed| allowed == id))
            || proven.dns_names.iter().any(|name| self.dns_names.contains(name))
    }
}

/// How many addresses of `X-Forwarded-For` are read.
const MAX_HOPS: usize = 32;

impl SourcePolicy {
    /// The address of the caller: that of the connection or, behind trusted proxies, the one that they report.
    #[must_use]
    pub fn address(&self, caller: &Caller, headers: &HeaderMap) -> IpAddr {
        let trusted = |address: IpAddr| self.trusted_proxies.iter().any(|network| network.contains(address));
        let mut address = caller.address;
        if !trusted(address) {
            return address;
        }
        let values = headers.get_all("x-forwarded-for").iter().rev();
        let hops = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
        for hop in hops.take(MAX_HOPS) {
            // An entry that cannot be read ends the chain: no trusted proxy vouches for those before it.
            let Ok(hop) = hop.trim().parse() else { return address };
            address = hop;
            if !trusted(address) {
                return address;
            }
        }
        address
    }

    /// What the caller's certificate proves here; `trust_domain` are the authorities that vouch for SPIFFE IDs.
    #[must_use]
    pub fn prove<'a>(&self, caller: &'a Caller, trust_domain: Option<&Authorities>, now: Timestamp) -> ProvenNames<'a> {
        let Some(certificate) = &caller.certificate else { return ProvenNames::default() };
        match &self.certificates {
            Some(policy) => policy.prove(certificate, trust_domain, now),
            None => CertificatePolicy::default().prove(certificate, trust_domain, now),
        }
    }

    /// Whether a caller with this [address](Self::address) and these names is allowed.
    #[must_use]
    pub fn admits(&self, address: IpAddr, proven: &ProvenNames<'_>) -> bool {
        let in_network = || self.networks.iter().any(|network| network.contains(address));
        (self.networks.is_empty() || in_network())
            && self.certificates.as_ref().is_none_or(|policy| policy.admits(proven))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

    use super::*;

    fn caller(address: &str) -> Caller {
        Caller { address: address.parse().unwrap(), certificate: None }
    }

    /// Whether a caller without a certificate is allowed.
    fn admits(policy: &SourcePolicy, address: &str, headers: &HeaderMap) -> bool {
        policy.admits(policy.address(&caller(address), headers), &ProvenNames::default())
    }

    fn forwarded(values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (http::HeaderName::from_static("x-forwarded-for"), http::HeaderValue::from_static(value)))
            .collect()
    }

    fn policy(networks: &[&str], proxies: &[&str]) -> SourcePolicy {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        SourcePolicy { networks: read(networks), trusted_proxies: read(proxies), ..SourcePolicy::default() }
    }

    #[test]
    fn a_network_holds_its_addresses_in_either_family() {
        let policy = policy(&["192.0.2.0/24", "2001:db8::/32"], &[]);
        let admits = |address| admits(&policy, address, &HeaderMap::new());
        assert!(admits("192.0.2.255") && admits("::ffff:192.0.2.1") && admits("2001:db8::1"));
        assert!(!admits("192.0.3.0") && !admits("2001:db9::") && !admits("::192.0.2.1"));
    }

    #[test]
    fn a_header_of_a_caller_proves_nothing_unless_a_trusted_proxy_sent_it() {
        let direct = policy(&["192.0.2.0/24"], &[]);
        assert!(!admits(&direct, "203.0.113.9", &forwarded(&["192.0.2.1"])), "no trusted proxy");
        let proxied = policy(&["192.0.2.0/24"], &["10.0.0.0/8"]);
        assert!(admits(&proxied, "10.0.0.1", &forwarded(&["192.0.2.1"])));
        assert!(admits(&proxied, "10.0.0.1", &forwarded(&["192.0.2.1, 10.0.0.2"])));
        let spoofed = forwarded(&["192.0.2.1, 203.0.113.9"]);
        assert!(!admits(&proxied, "10.0.0.1", &spoofed), "the last one that is no proxy is the caller");
        let twice = forwarded(&["192.0.2.1", "203.0.113.9"]);
        assert!(!admits(&proxied, "10.0.0.1", &twice), "a second header line comes later");
        assert!(!admits(&proxied, "10.0.0.1", &forwarded(&["192.0.2.1, unknown"])));
        assert!(!admits(&proxied, "10.0.0.1", &HeaderMap::new()));
    }

    #[test]
    fn a_certificate_is_asked_for_as_well_as_a_network() {
        let certificates = CertificatePolicy {
            spiffe_ids: vec!["spiffe://shop.example/ns/a/sa/b".into()],
            dns_names: vec!["hooks.example".into()],
            dns_authorities: None,
        };
        let policy = SourcePolicy { certificates: Some(certificates), ..policy(&["192.0.2.0/24"], &[]) };
        let with = |address: &str, spiffe_id: Option<&str>, dns_name: &str| {
            let proven = ProvenNames { spiffe_id, dns_names: &[dns_name.to_owned()] };
            policy.admits(address.parse().unwrap(), &proven)
        };
        assert!(with("192.0.2.1", Some("spiffe://shop.example/ns/a/sa/b"), "x"));
        assert!(with("192.0.2.1", None, "hooks.example"));
        assert!(!with("192.0.2.1", Some("spiffe://shop.example/ns/a/sa/c"), "evil.hooks.example"));
        assert!(!with("203.0.113.9", None, "hooks.example"));
        assert!(!admits(&policy, "192.0.2.1", &HeaderMap::new()), "without a certificate");
    }

    /// A set of authorities, and a caller with a certificate of it that has both kinds of names.
    fn party(address: &str) -> (Authorities, Caller) {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(["hooks.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://demo/ns/shop/sa/orders".try_into().unwrap()));
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let authorities = Authorities::parse(issuer.pem().as_bytes(), 1).unwrap();
        (authorities, Caller { certificate: ClientCertificate::new(&[leaf.der().clone()]), ..caller(address) })
    }

    #[test]
    fn an_authority_proves_only_the_names_that_it_is_there_for() {
        let ((domain, service), (psp, sender)) = (party("192.0.2.1"), party("192.0.2.1"));
        let psp = Arc::new(psp);
        let (id, name) = ("spiffe://demo/ns/shop/sa/orders", "hooks.example");
        let policy = |spiffe_ids: &[&str], dns_names: &[&str], dns_authorities: Option<&Arc<Authorities>>| {
            let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let certificates = CertificatePolicy {
                spiffe_ids: texts(spiffe_ids),
                dns_names: texts(dns_names),
                dns_authorities: dns_authorities.cloned(),
            };
            SourcePolicy { certificates: Some(certificates), ..SourcePolicy::default() }
        };
        let names = |policy: &SourcePolicy, caller: &Caller| {
            let proven = policy.prove(caller, Some(&domain), Timestamp::now());
            (policy.admits(caller.address, &proven), proven.identity().map(ToOwned::to_owned))
        };
        let (by_id, by_name) = (Some(id.to_owned()), Some(name.to_owned()));
        for (what, policy, of_service, of_sender) in [
            ("nothing pinned", SourcePolicy::default(), (true, by_id.clone()), (true, None)),
            ("an ID", policy(&[id], &[], None), (true, by_id.clone()), (false, None)),
            ("a name, from before bundles", policy(&[], &[name], None), (true, by_id.clone()), (false, None)),
            ("a name", policy(&[], &[name], Some(&psp)), (false, None), (true, by_name.clone())),
            ("both", policy(&[id], &[name], Some(&psp)), (true, by_id.clone()), (true, by_name.clone())),
            ("an ID, and another name", policy(&[id], &["other.example"], Some(&psp)), (true, by_id), (false, by_name)),
        ] {
            assert_eq!(names(&policy, &service), of_service, "{what}");
            assert_eq!(names(&policy, &sender), of_sender, "{what}");
        }
        let without_domain = policy(&[id], &[], None).prove(&service, None, Timestamp::now()).identity().is_none();
        assert!(without_domain, "before the edge has a certificate");
    }
}

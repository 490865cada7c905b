//! Which callers are allowed, by address and certificate. Pure.

use std::net::IpAddr;

use http::HeaderMap;

use super::caller::Caller;
use crate::domain::network::Network;
use crate::edge::front::CertificateNames;

/// Which callers are allowed. Every condition that is set must hold; without any, everybody is allowed.
#[derive(Clone, Debug, Default)]
pub struct SourcePolicy {
    /// SPIFFE IDs of the certificates that are allowed, beside those by DNS name.
    pub spiffe_ids: Vec<String>,
    /// DNS names of the certificates that are allowed, in lower case.
    pub dns_names: Vec<String>,
    /// Networks that the caller's address must be in.
    pub networks: Vec<Network>,
    /// Networks of the proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
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

    /// Whether the caller is allowed.
    #[must_use]
    pub fn admits(&self, caller: &Caller, headers: &HeaderMap) -> bool {
        let in_network = || {
            let address = self.address(caller, headers);
            self.networks.iter().any(|network| network.contains(address))
        };
        (self.networks.is_empty() || in_network()) && self.admits_certificate(caller.certificate.as_ref())
    }

    fn admits_certificate(&self, names: Option<&CertificateNames>) -> bool {
        if self.spiffe_ids.is_empty() && self.dns_names.is_empty() {
            return true;
        }
        names.is_some_and(|names| {
            names.spiffe_id.as_ref().is_some_and(|id| self.spiffe_ids.contains(id))
                || names.dns_names.iter().any(|name| self.dns_names.contains(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(address: &str) -> Caller {
        Caller { address: address.parse().unwrap(), certificate: None }
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
        let admits = |address| policy.admits(&caller(address), &HeaderMap::new());
        assert!(admits("192.0.2.255") && admits("::ffff:192.0.2.1") && admits("2001:db8::1"));
        assert!(!admits("192.0.3.0") && !admits("2001:db9::") && !admits("::192.0.2.1"));
    }

    #[test]
    fn a_header_of_a_caller_proves_nothing_unless_a_trusted_proxy_sent_it() {
        let direct = policy(&["192.0.2.0/24"], &[]);
        assert!(!direct.admits(&caller("203.0.113.9"), &forwarded(&["192.0.2.1"])), "no trusted proxy");
        let proxied = policy(&["192.0.2.0/24"], &["10.0.0.0/8"]);
        assert!(proxied.admits(&caller("10.0.0.1"), &forwarded(&["192.0.2.1"])));
        assert!(proxied.admits(&caller("10.0.0.1"), &forwarded(&["192.0.2.1, 10.0.0.2"])));
        let spoofed = forwarded(&["192.0.2.1, 203.0.113.9"]);
        assert!(!proxied.admits(&caller("10.0.0.1"), &spoofed), "the last one that is no proxy is the caller");
        let twice = forwarded(&["192.0.2.1", "203.0.113.9"]);
        assert!(!proxied.admits(&caller("10.0.0.1"), &twice), "a second header line comes later");
        assert!(!proxied.admits(&caller("10.0.0.1"), &forwarded(&["192.0.2.1, unknown"])));
        assert!(!proxied.admits(&caller("10.0.0.1"), &HeaderMap::new()));
    }

    #[test]
    fn a_certificate_is_asked_for_as_well_as_a_network() {
        let policy = SourcePolicy {
            spiffe_ids: vec!["spiffe://shop.example/ns/a/sa/b".into()],
            dns_names: vec!["hooks.example".into()],
            ..policy(&["192.0.2.0/24"], &[])
        };
        let with = |address: &str, spiffe_id: Option<&str>, dns_name: &str| {
            let names = CertificateNames { spiffe_id: spiffe_id.map(Into::into), dns_names: vec![dns_name.into()] };
            policy.admits(&Caller { certificate: Some(names), ..caller(address) }, &HeaderMap::new())
        };
        assert!(with("192.0.2.1", Some("spiffe://shop.example/ns/a/sa/b"), "x"));
        assert!(with("192.0.2.1", None, "hooks.example"));
        assert!(!with("192.0.2.1", Some("spiffe://shop.example/ns/a/sa/c"), "evil.hooks.example"));
        assert!(!with("203.0.113.9", None, "hooks.example"));
        assert!(!policy.admits(&caller("192.0.2.1"), &HeaderMap::new()), "without a certificate");
    }
}

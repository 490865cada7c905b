//! Who may call, beside holding a key. Pure.

use std::net::IpAddr;

use http::HeaderMap;

pub use self::token::TokenPin;
use super::network::Network;
use crate::api::WebhookSource;

mod token;

/// What is known of the caller from the connection, and what an audit line tells of it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Address of the connection.
    pub address: IpAddr,
    /// What its certificate proves; `None` when it showed none.
    pub certificate: Option<CallerNames>,
}

impl Caller {
    /// What is on record of who this is: its SPIFFE ID, or else the first DNS name of its certificate.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        let names = self.certificate.as_ref()?;
        names.spiffe_id.as_deref().or_else(|| names.dns_names.first().map(String::as_str))
    }
}

/// Names in a client certificate that chains to an authority that the edge trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerNames {
    /// The SPIFFE ID, when it has exactly one URI SAN and that is one (X509-SVID section 2).
    pub spiffe_id: Option<String>,
    /// DNS SANs, in lower case.
    pub dns_names: Vec<String>,
}

/// The source pin of an endpoint: every part that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct Pin {
    spiffe_ids: Vec<String>,
    dns_names: Vec<String>,
    networks: Vec<Network>,
    proxies: Vec<Network>,
}

/// How many addresses of `X-Forwarded-For` are looked at.
const HOPS: usize = 32;

impl Pin {
    /// Compiles a pin.
    ///
    /// # Errors
    /// Says which value is wrong.
    pub fn new(source: Option<&WebhookSource>) -> Result<Self, String> {
        let Some(source) = source else { return Ok(Self::default()) };
        let networks = |field: &str, texts: &[String]| {
            let read = |text: &String| text.parse().map_err(|why| format!("{field}: {why}"));
            texts.iter().map(read).collect::<Result<_, String>>()
        };
        let certificate = source.client_certificate.clone().unwrap_or_default();
        Ok(Self {
            spiffe_ids: certificate.spiffe_ids,
            dns_names: certificate.dns_names,
            networks: networks("source.cidrs", &source.cidrs)?,
            proxies: networks("source.trustedProxies", &source.trusted_proxies)?,
        })
    }

    /// The address of the caller: that of the connection, or what trusted proxies say of it.
    #[must_use]
    pub fn address(&self, caller: &Caller, headers: &HeaderMap) -> IpAddr {
        let trusted = |address: IpAddr| self.proxies.iter().any(|network| network.contains(address));
        let mut address = caller.address;
        if !trusted(address) {
            return address;
        }
        let values = headers.get_all("x-forwarded-for").iter().rev();
        let hops = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
        for hop in hops.take(HOPS) {
            // What cannot be read ends the chain: whoever stands before it is nobody's word.
            let Ok(hop) = hop.trim().parse() else { return address };
            address = hop;
            if !trusted(address) {
                return address;
            }
        }
        address
    }

    /// Whether the caller is one that the endpoint expects.
    #[must_use]
    pub fn admits(&self, caller: &Caller, headers: &HeaderMap) -> bool {
        let in_network = || {
            let address = self.address(caller, headers);
            self.networks.iter().any(|network| network.contains(address))
        };
        (self.networks.is_empty() || in_network()) && self.admits_certificate(caller.certificate.as_ref())
    }

    fn admits_certificate(&self, names: Option<&CallerNames>) -> bool {
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
    use crate::api::ClientCertificatePin;

    fn caller(address: &str) -> Caller {
        Caller { address: address.parse().unwrap(), certificate: None }
    }

    fn forwarded(values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (http::HeaderName::from_static("x-forwarded-for"), http::HeaderValue::from_static(value)))
            .collect()
    }

    fn pin(cidrs: &[&str], proxies: &[&str]) -> Pin {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let source = WebhookSource { cidrs: texts(cidrs), trusted_proxies: texts(proxies), ..WebhookSource::default() };
        Pin::new(Some(&source)).unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_in_either_family() {
        let pin = pin(&["192.0.2.0/24", "2001:db8::/32"], &[]);
        let admits = |address| pin.admits(&caller(address), &HeaderMap::new());
        assert!(admits("192.0.2.255") && admits("::ffff:192.0.2.1") && admits("2001:db8::1"));
        assert!(!admits("192.0.3.0") && !admits("2001:db9::") && !admits("::192.0.2.1"));
    }

    #[test]
    fn a_header_of_a_caller_proves_nothing_unless_a_trusted_proxy_sent_it() {
        let pinned = pin(&["192.0.2.0/24"], &[]);
        assert!(!pinned.admits(&caller("203.0.113.9"), &forwarded(&["192.0.2.1"])), "nobody trusts this caller");
        let proxied = pin(&["192.0.2.0/24"], &["10.0.0.0/8"]);
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
        let source = WebhookSource {
            client_certificate: Some(ClientCertificatePin {
                spiffe_ids: vec!["spiffe://shop.example/ns/a/sa/b".into()],
                dns_names: vec!["hooks.example".into()],
            }),
            cidrs: vec!["192.0.2.0/24".into()],
            ..WebhookSource::default()
        };
        let pin = Pin::new(Some(&source)).unwrap();
        let with = |address: &str, spiffe_id: Option<&str>, dns_name: &str| {
            let names = CallerNames { spiffe_id: spiffe_id.map(Into::into), dns_names: vec![dns_name.into()] };
            pin.admits(&Caller { certificate: Some(names), ..caller(address) }, &HeaderMap::new())
        };
        assert!(with("192.0.2.1", Some("spiffe://shop.example/ns/a/sa/b"), "x"));
        assert!(with("192.0.2.1", None, "hooks.example"));
        assert!(!with("192.0.2.1", Some("spiffe://shop.example/ns/a/sa/c"), "evil.hooks.example"));
        assert!(!with("203.0.113.9", None, "hooks.example"));
        assert!(!pin.admits(&caller("192.0.2.1"), &HeaderMap::new()), "without a certificate");
    }
}

//! Networks, in source policies and in address policies. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv6Net};
use thiserror::Error;

/// A text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0} is not a network such as 192.0.2.0/24")]
pub struct InvalidNetwork(String);

/// A network. Both families are in one space: an IPv4 network is its IPv4-mapped IPv6 network (RFC 4291 section 2.5.5.2), so that
/// it does not matter in which family an address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(Ipv6Net);

/// Length of the prefix of all IPv4-mapped addresses.
const MAPPED_PREFIX: u8 = 96;

impl FromStr for Network {
    type Err = InvalidNetwork;

    /// Reads `192.0.2.0/24` or `2001:db8::/32`. Bits behind the prefix are ignored.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        // The parts are read by the standard library, which refuses addresses with leading zeros: some readers take those for octal.
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let network = match IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()? {
                IpNet::V4(network) => {
                    Ipv6Net::new(network.addr().to_ipv6_mapped(), MAPPED_PREFIX + network.prefix_len()).ok()?
                }
                IpNet::V6(network) => network,
            };
            Some(Self(network.trunc()))
        };
        read().ok_or_else(|| InvalidNetwork(text.to_owned()))
    }
}

impl Network {
    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        IpAddr::V6(self.0.network()).to_canonical()
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        self.0.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_an_address_and_a_prefix_length() {
        for wrong in [
            "192.0.2.0",
            "192.0.2.0/33",
            "x/8",
            "::/129",
            "192.0.2.0/-1",
            "192.0.2.0/ 8",
            " ::/0",
            "1/8",
            "192.0.02.0/24",
            "/8",
            "",
        ] {
            let error = wrong.parse::<Network>().unwrap_err();
            assert_eq!(error.to_string(), format!("{wrong} is not a network such as 192.0.2.0/24"));
        }
        for right in ["192.0.2.0/24", "192.0.2.7/24", "0.0.0.0/0", "192.0.2.1/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert!(right.parse::<Network>().is_ok(), "{right}");
        }
    }

    #[test]
    fn a_network_contains_its_own_family() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("0.0.0.0/0", "203.0.113.9") && contains("0.0.0.0/0", "::ffff:203.0.113.9"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("192.0.2.7/24", "192.0.2.200"), "bits behind the prefix are ignored");
        assert!(contains("::ffff:192.0.2.0/120", "192.0.2.1") && !contains("::ffff:192.0.2.0/120", "192.0.3.1"));
        assert!(contains("::/0", "203.0.113.9"));
    }
}

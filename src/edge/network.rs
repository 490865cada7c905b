//! Networks, as source pins and the rules of where connections may lead name them. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// A text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0} is not a network such as 192.0.2.0/24")]
pub struct InvalidNetwork(String);

/// An address block. Both families lie in one space: an IPv4 network is its mapped IPv6 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    /// Reads `192.0.2.0/24` or `2001:db8::/32`.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let wrong = || InvalidNetwork(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u32 = length.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most {
            return Err(wrong());
        }
        let mask = u128::MAX.checked_shl(most - length).unwrap_or(0);
        let mask = if address.is_ipv4() { mask | !u128::from(u32::MAX) } else { mask };
        Ok(Self { address: number(address) & mask, mask })
    }
}

impl Network {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        number(address) & self.mask == self.address
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_strictly_and_holds_its_own_family() {
        let everything: Network = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("203.0.113.9".parse().unwrap()));
        assert!(!everything.contains("2001:db8::1".parse().unwrap()));
        for wrong in ["192.0.2.0", "192.0.2.0/33", "x/8", "::/129", "192.0.2.0/-1", ""] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}

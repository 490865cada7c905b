//! Where a connection may lead. Names prove nothing: anybody who may create a Service can point its name anywhere, the owner of
//! a domain can point it into the cluster, and a broker announces what it likes. So addresses are judged, each time when a
//! connection is made, and the connection goes to the address that was judged. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use thiserror::Error;

use super::network::Network;

/// Addresses at which clouds serve the credentials of a machine, besides link-local ones.
const METADATA: [IpAddr; 4] = [
    // Alibaba Cloud, and the agent of Azure.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Amazon and Google, over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];
/// Networks in IPv4 or in the global unicast space of IPv6 (`2000::/3`) that are not on the Internet, or that are translated to any
/// address: the special-purpose registries of IANA (RFC 6890), and multicast.
const SPECIAL: [&str; 20] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "64:ff9b::/96",
];
static NOT_PUBLIC: LazyLock<Vec<Network>> =
    LazyLock::new(|| SPECIAL.iter().filter_map(|network| network.parse().ok()).collect());

/// An address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// It is one of this machine.
    #[error("it is an address of the machine that connects")]
    Loopback,
    /// It is link-local, of a cloud's metadata, or of no single machine.
    #[error("it is link-local, of a cloud's metadata service, or no address of one machine")]
    Near,
    /// It is private.
    #[error("it is not on the Internet, and in no network that is allowed")]
    Private,
}

/// Which addresses may be connected to.
#[derive(Clone, Debug)]
pub struct AddressPolicy {
    reach: Reach,
    /// The loopback address that is admitted.
    loopback: Option<IpAddr>,
}

#[derive(Clone, Debug)]
enum Reach {
    /// What the platform or the API server names.
    Everywhere,
    /// What anybody else names: the Internet, and these networks.
    Public(Arc<[Network]>),
}

impl AddressPolicy {
    /// For addresses that the platform names (brokers with what they announce, Redis) or the API server assigns (Services): they
    /// may be private. `loopback` is the one loopback address that is admitted, for an installation on a machine without a network.
    #[must_use]
    pub fn trusted(loopback: Option<IpAddr>) -> Self {
        Self { reach: Reach::Everywhere, loopback }
    }

    /// For addresses that tenants name: on the Internet, or in these networks. A network that is itself within the loopback
    /// network admits its addresses; no other one does.
    #[must_use]
    pub fn public(allowed: Vec<Network>) -> Self {
        Self { reach: Reach::Public(allowed.into()), loopback: None }
    }

    /// Judges an address.
    ///
    /// # Errors
    /// Why it may not be connected to.
    pub fn judge(&self, address: IpAddr) -> Result<(), Refused> {
        let address = address.to_canonical();
        let allowed: &[Network] = match &self.reach {
            Reach::Everywhere => &[],
            Reach::Public(allowed) => allowed,
        };
        if is_loopback(address) {
            let named = allowed.iter().any(|network| network.contains(address) && is_loopback(network.address()));
            return if named || self.loopback == Some(address) { Ok(()) } else { Err(Refused::Loopback) };
        }
        if is_near(address) {
            return Err(Refused::Near);
        }
        let admitted = match self.reach {
            Reach::Everywhere => true,
            Reach::Public(_) => allowed.iter().any(|network| network.contains(address)) || is_public(address),
        };
        if admitted { Ok(()) } else { Err(Refused::Private) }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn is_near(address: IpAddr) -> bool {
    let shared = address.is_unspecified() || address.is_multicast() || METADATA.contains(&address);
    match address {
        IpAddr::V4(address) => shared || address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => shared || address.is_unicast_link_local(),
    }
}

fn is_public(address: IpAddr) -> bool {
    let assigned = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
    };
    assigned && !NOT_PUBLIC.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &AddressPolicy, address: &str) -> Result<(), Refused> {
        policy.judge(address.parse().unwrap())
    }

    fn public(allowed: &[&str]) -> AddressPolicy {
        AddressPolicy::public(allowed.iter().map(|network| network.parse().unwrap()).collect())
    }

    const LOOPBACK: [&str; 4] = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"];
    const NEAR: [&str; 14] = [
        "0.0.0.0",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::ffff:100.100.100.200",
        "::ffff:0.0.0.0",
    ];

    #[test]
    fn nobody_is_led_to_this_machine_or_to_the_metadata_of_a_cloud() {
        let everything = public(&["0.0.0.0/0", "::/0", "169.254.0.0/16"]);
        for policy in [AddressPolicy::trusted(None), public(&[]), everything] {
            for refused in LOOPBACK {
                assert_eq!(judge(&policy, refused), Err(Refused::Loopback), "{refused} {policy:?}");
            }
            for refused in NEAR {
                assert_eq!(judge(&policy, refused), Err(Refused::Near), "{refused} {policy:?}");
            }
        }
    }

    #[test]
    fn a_loopback_address_is_admitted_only_by_itself() {
        let policy = AddressPolicy::trusted(Some("127.0.0.1".parse().unwrap()));
        assert_eq!(judge(&policy, "127.0.0.1"), Ok(()));
        assert_eq!(judge(&policy, "::ffff:127.0.0.1"), Ok(()));
        for refused in ["127.0.0.2", "::1"] {
            assert_eq!(judge(&policy, refused), Err(Refused::Loopback), "{refused}");
        }
        let policy = public(&["127.0.0.1/32"]);
        assert_eq!((judge(&policy, "127.0.0.1"), judge(&policy, "127.0.0.2")), (Ok(()), Err(Refused::Loopback)));
        assert_eq!(judge(&public(&["126.0.0.0/7"]), "127.0.0.1"), Err(Refused::Loopback));
    }

    #[test]
    fn what_the_platform_names_may_be_private() {
        for taken in ["10.96.0.1", "192.168.7.7", "203.0.113.9", "fd00::1", "2001:db8::1", "1.1.1.1"] {
            assert_eq!(judge(&AddressPolicy::trusted(None), taken), Ok(()), "{taken}");
        }
    }

    #[test]
    fn what_others_name_is_on_the_internet_or_in_a_network_that_is_allowed() {
        assert_eq!(NOT_PUBLIC.len(), SPECIAL.len());
        for refused in [
            "10.96.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "0.1.2.3",
            "198.19.0.1",
            "192.0.0.192",
            "240.0.0.1",
            "fd00::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "4000::1",
        ] {
            assert_eq!(judge(&public(&[]), refused), Err(Refused::Private), "{refused}");
        }
        for taken in ["1.1.1.1", "172.32.0.1", "192.0.1.1", "100.128.0.1", "2606:4700::1", "2a00:1450::1"] {
            assert_eq!(judge(&public(&[]), taken), Ok(()), "{taken}");
        }
        let allowed = public(&["10.1.0.0/16"]);
        for taken in ["10.1.2.3", "::ffff:10.1.2.3", "1.1.1.1"] {
            assert_eq!(judge(&allowed, taken), Ok(()), "{taken}");
        }
        assert_eq!(judge(&allowed, "10.2.0.1"), Err(Refused::Private));
    }
}

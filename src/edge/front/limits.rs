//! How much peers may hold, together and each of them. Without a limit for the process, peers could end it, and it would serve
//! nobody; without one for each address, one peer could hold everything.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Maximum number of connections, and of those from one address.
const MAX_CONNECTIONS: usize = 20_000;
const MAX_CONNECTIONS_PER_ADDRESS: usize = 12_000;
/// Memory of an idle connection at most, in bytes.
const CONNECTION_BYTES: usize = 40 << 10;

/// What this process may use at most, of which every part of the edge takes its share: three eighths of the memory are for
/// connections, a quarter is for bodies, and an eighth for the delivery history. A quarter of the file descriptors is left to
/// outgoing connections: peers that only hold connections must not keep deliveries from their targets.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLimits {
    /// Memory of the container, in bytes.
    pub memory: usize,
    /// Open files.
    pub files: usize,
}

impl ProcessLimits {
    /// Reads the limits of this process; one that is not set is `usize::MAX`.
    #[must_use]
    pub fn read() -> Self {
        let read = |path| read_to_string(path).ok()?.trim().parse().ok();
        let memory = read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
        let limits = read_to_string("/proc/self/limits").unwrap_or_default();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        Self {
            memory: memory.unwrap_or(usize::MAX),
            files: files.and_then(|files| files.parse().ok()).unwrap_or(usize::MAX),
        }
    }

    /// The quota of connections.
    pub(super) fn connections(self) -> Arc<Quota> {
        let max = MAX_CONNECTIONS.min(self.memory / 8 * 3 / CONNECTION_BYTES).min(self.files / 4 * 3);
        Quota::new(max, MAX_CONNECTIONS_PER_ADDRESS)
    }
}

/// The network that counts as one peer: an IPv4 address, or the 64 leading bits of an IPv6 address, of which one host has as many
/// addresses as it likes.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// An amount that all peers share, with a maximum for each address.
pub struct Quota {
    max: usize,
    max_per_address: usize,
    usage: Mutex<Usage>,
}

#[derive(Default)]
struct Usage {
    total: usize,
    addresses: HashMap<IpAddr, usize>,
}

impl Quota {
    /// A quota of which nothing is used.
    #[must_use]
    pub fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_address, usage: Mutex::default() })
    }

    /// A permit for an address, which holds nothing yet.
    #[must_use]
    pub fn permit(self: &Arc<Self>, address: IpAddr) -> Permit {
        Permit { quota: self.clone(), address, size: 0 }
    }

    /// How much of it is used: 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    #[must_use]
    pub fn used(&self) -> f64 {
        self.usage.lock().total as f64 / self.max as f64
    }

    /// The maximum for all and for each address.
    #[cfg(test)]
    pub(in crate::edge) fn max(&self) -> (usize, usize) {
        (self.max, self.max_per_address)
    }
}

/// What one connection or body uses of a quota. It is given back when the permit is dropped.
pub struct Permit {
    quota: Arc<Quota>,
    address: IpAddr,
    size: usize,
}

impl Permit {
    /// Takes so much more. Returns whether the quota allows it; if not, nothing changes.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let mut usage = self.quota.usage.lock();
        let own = usage.addresses.get(&self.address).copied().unwrap_or(0);
        let fits = usage.total + more <= self.quota.max && own + more <= self.quota.max_per_address;
        if fits {
            usage.total += more;
            usage.addresses.insert(self.address, own + more);
            self.size += more;
        }
        fits
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut usage = self.quota.usage.lock();
        usage.total -= self.size;
        if let Some(own) = usage.addresses.get_mut(&self.address) {
            *own -= self.size;
            if *own == 0 {
                usage.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn connections_are_limited_by_memory_and_file_descriptors() {
        let connections = |memory, files| ProcessLimits { memory, files }.connections().max;
        assert_eq!(connections(usize::MAX, usize::MAX), 20_000);
        assert_eq!(connections(usize::MAX, 1024), 768);
        assert_eq!(connections(256 << 20, usize::MAX), 2457);
    }

    #[test]
    fn a_dropped_permit_gives_back_what_it_held() {
        let quota = Quota::new(1 << 20, 1 << 20);
        let mut permits = [1, 2].map(|last| quota.permit(address(last)));
        assert!(permits.iter_mut().all(|permit| permit.grow(400_000) && permit.grow(100_000)));
        assert!(!quota.permit(address(3)).grow(100_000));
        drop(permits);
        assert!(quota.permit(address(3)).grow(1 << 20));
        assert!(quota.usage.lock().addresses.is_empty(), "an address that holds nothing is forgotten");
    }

    #[test]
    fn one_address_cannot_use_the_quota_of_all() {
        let quota = Quota::new(100, 25);
        let [mut first, mut second, mut other] = [1, 1, 2].map(|last| quota.permit(address(last)));
        assert!(first.grow(20) && second.grow(5));
        assert!(!second.grow(1) && !first.grow(1), "the address has its share");
        assert!(other.grow(25));
        drop(first);
        assert!(second.grow(20) && !second.grow(1), "the share is free again, and no more");
        assert!((quota.used() - 0.5).abs() < 1e-9);
    }
}

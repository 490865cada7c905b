//! How much peers and namespaces may hold, together and each of them. Without a limit for the process, peers could end it, and it
//! would serve nobody; without one for each network and namespace, one of them could hold everything.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Maximum number of connections, and of those from one network, which leaves at least a fifth to others.
const MAX_CONNECTIONS: usize = 20_000;
const MAX_CONNECTIONS_PER_NETWORK: usize = 12_000;
/// Maximum number of deliveries on the way to their targets.
const MAX_DELIVERIES: usize = 10_000;
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
        Quota::new(max, MAX_CONNECTIONS_PER_NETWORK.min(max / 5 * 4), usize::MAX)
    }

    /// The quota of deliveries on the way to their targets: each takes a file descriptor, of those that connections leave. A
    /// namespace has at most half of it, so that its slow targets do not keep others from theirs.
    #[must_use]
    pub fn deliveries(self) -> Arc<Quota> {
        let max = MAX_DELIVERIES.min(self.files / 4);
        Quota::new(max, usize::MAX, max / 2)
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

/// An amount that all share, with a maximum for each network and each namespace.
pub struct Quota {
    max: usize,
    max_per_network: usize,
    max_per_namespace: usize,
    usage: Mutex<Usage>,
}

#[derive(Default)]
struct Usage {
    total: usize,
    networks: HashMap<IpAddr, usize>,
    namespaces: HashMap<Arc<str>, usize>,
}

impl Quota {
    /// A quota of which nothing is used.
    #[must_use]
    pub fn new(max: usize, max_per_network: usize, max_per_namespace: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_network, max_per_namespace, usage: Mutex::default() })
    }

    /// A permit for a network, and for a namespace if it is for one, which holds nothing yet.
    #[must_use]
    pub fn permit(self: &Arc<Self>, network: IpAddr, namespace: Option<Arc<str>>) -> Permit {
        Permit { quota: self.clone(), network, namespace, size: 0 }
    }

    /// How much of it is used: 0 to 1.
    #[allow(clippy::cast_precision_loss)]
    #[must_use]
    pub fn used(&self) -> f64 {
        self.usage.lock().total as f64 / self.max as f64
    }

    /// The maximum for all, for each network and for each namespace.
    #[cfg(test)]
    pub(in crate::edge) fn max(&self) -> (usize, usize, usize) {
        (self.max, self.max_per_network, self.max_per_namespace)
    }
}

/// What one connection, body or delivery uses of a quota. It is given back when the permit is dropped.
pub struct Permit {
    quota: Arc<Quota>,
    network: IpAddr,
    namespace: Option<Arc<str>>,
    size: usize,
}

impl Permit {
    /// Takes so much more. Returns whether the quota allows it; if not, nothing changes.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let Quota { max, max_per_network, max_per_namespace, usage } = &*self.quota;
        let usage = &mut *usage.lock();
        let network = usage.networks.get(&self.network).copied().unwrap_or(0) + more;
        let namespace = self.namespace.as_ref().and_then(|it| usage.namespaces.get(it)).copied().unwrap_or(0) + more;
        if usage.total + more > *max || network > *max_per_network || namespace > *max_per_namespace {
            return false;
        }
        usage.total += more;
        usage.networks.insert(self.network, network);
        if let Some(name) = &self.namespace {
            usage.namespaces.insert(name.clone(), namespace);
        }
        self.size += more;
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let usage = &mut *self.quota.usage.lock();
        usage.total -= self.size;
        give_back(&mut usage.networks, &self.network, self.size);
        if let Some(namespace) = &self.namespace {
            give_back(&mut usage.namespaces, namespace, self.size);
        }
    }
}

/// Forgets whoever holds nothing any more.
fn give_back<K: Eq + Hash>(held: &mut HashMap<K, usize>, holder: &K, size: usize) {
    if let Some(own) = held.get_mut(holder) {
        *own -= size;
        if *own == 0 {
            held.remove(holder);
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
        let limits = |memory, files| ProcessLimits { memory, files };
        let connections = |memory, files| limits(memory, files).connections().max();
        assert_eq!(connections(usize::MAX, usize::MAX), (20_000, 12_000, usize::MAX));
        assert_eq!(connections(usize::MAX, 1024).0, 768);
        assert_eq!(connections(256 << 20, usize::MAX), (2457, 1964, usize::MAX));
        assert_eq!(limits(usize::MAX, usize::MAX).deliveries().max(), (10_000, usize::MAX, 5_000));
        assert_eq!(limits(usize::MAX, 1024).deliveries().max(), (256, usize::MAX, 128));
    }

    #[test]
    fn a_dropped_permit_gives_back_what_it_held() {
        let quota = Quota::new(1 << 20, 1 << 20, 1 << 20);
        let mut permits = [1, 2].map(|last| quota.permit(address(last), Some("shop".into())));
        assert!(permits.iter_mut().all(|permit| permit.grow(400_000) && permit.grow(100_000)));
        assert!(!quota.permit(address(3), None).grow(100_000));
        drop(permits);
        assert!(quota.permit(address(3), None).grow(1 << 20));
        let usage = quota.usage.lock();
        assert!(usage.networks.is_empty() && usage.namespaces.is_empty(), "whoever holds nothing is forgotten");
    }

    #[test]
    fn one_address_cannot_use_the_quota_of_all() {
        let quota = Quota::new(100, 25, 100);
        let [mut first, mut second, mut other] = [1, 1, 2].map(|last| quota.permit(address(last), None));
        assert!(first.grow(20) && second.grow(5));
        assert!(!second.grow(1) && !first.grow(1), "the address has its share");
        assert!(other.grow(25));
        drop(first);
        assert!(second.grow(20) && !second.grow(1), "the share is free again, and no more");
        assert!((quota.used() - 0.5).abs() < 1e-9);
    }
    #[test]
    fn one_namespace_cannot_use_the_quota_of_all() {
        let quota = Quota::new(100, 100, 50);
        let permit = |namespace: &str, last| quota.permit(address(last), Some(namespace.into()));
        let (mut first, mut second, mut other) = (permit("evil", 1), permit("evil", 2), permit("shop", 1));
        assert!(first.grow(30) && second.grow(20) && !first.grow(1), "from however many networks");
        assert!(other.grow(50));
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_64_bits_of_an_ipv6_address() {
        let of = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}

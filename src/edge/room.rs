//! How much callers may hold on to, together and each of them, and how many deliveries are remembered. What is not bounded by
//! what this process has would end it, and it would serve nobody; what is not bounded by address would be one caller's.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many connections there may be at most, and from one address.
const CONNECTIONS: usize = 20_000;
const CONNECTIONS_PER_ADDRESS: usize = 12_000;
/// What an idle connection takes at most, in bytes.
const CONNECTION: usize = 40 << 10;
/// How much bodies may take at most, in bytes.
const BODIES: usize = 256 << 20;
/// How many deliveries are remembered at most, and what one takes at most, in bytes.
const DELIVERIES: usize = 1 << 22;
const DELIVERY: usize = 64;
/// The largest body that an endpoint can allow: whoever sends nothing else has room for it.
const BODY: usize = 10 << 20;

/// Room for connections and bodies.
pub struct Room {
    connections: Arc<Bound>,
    bodies: Arc<Bound>,
    /// How many deliveries there is memory to remember.
    pub deliveries: usize,
}

impl Default for Room {
    /// What the limits of this process leave: of its container's memory, and of file descriptors.
    fn default() -> Self {
        let read = |path| read_to_string(path).ok()?.trim().parse().ok();
        let memory = read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
        let limits = read_to_string("/proc/self/limits").unwrap_or_default();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        Self::within(memory.unwrap_or(usize::MAX), files.and_then(|files| files.parse().ok()).unwrap_or(usize::MAX))
    }
}

impl Room {
    /// Three eighths of the memory are for connections, a quarter is for bodies, of which an address may hold a quarter, and
    /// an eighth for what is remembered. A quarter of the file descriptors is for deliveries: who only holds connections
    /// must not keep others from their targets.
    fn within(memory: usize, files: usize) -> Self {
        let connections = CONNECTIONS.min(memory / 8 * 3 / CONNECTION).min(files / 4 * 3);
        let bodies = BODIES.min(memory / 4);
        Self {
            connections: Bound::new(connections, CONNECTIONS_PER_ADDRESS),
            bodies: Bound::new(bodies, BODY.max(bodies / 4)),
            deliveries: DELIVERIES.min(memory / 8 / DELIVERY),
        }
    }

    /// Room for one more connection from this address.
    pub fn connection(&self, address: IpAddr) -> Option<Place> {
        let mut place = self.connections.place(address);
        place.grow(1).then_some(place)
    }

    /// Room for a body from this address, which grows with the body.
    pub fn body(&self, address: IpAddr) -> Place {
        self.bodies.place(address)
    }

    /// How much of the room is taken, of 1, and what for.
    pub fn taken(&self) -> [(&'static str, f64); 2] {
        [("connections", self.connections.taken()), ("bodies", self.bodies.taken())]
    }
}

/// So much for all together, and for each address.
struct Bound {
    all: usize,
    each: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: usize,
    addresses: HashMap<IpAddr, usize>,
}

impl Bound {
    fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, held: Mutex::default() })
    }

    fn place(self: &Arc<Self>, address: IpAddr) -> Place {
        Place { bound: self.clone(), address, size: 0 }
    }

    #[allow(clippy::cast_precision_loss)]
    fn taken(&self) -> f64 {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).all as f64 / self.all as f64
    }
}

/// What one connection or body takes of the room. Dropped, it is given back.
pub struct Place {
    bound: Arc<Bound>,
    address: IpAddr,
    size: usize,
}

impl Place {
    /// Takes so much more, if there is room for it.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        let mut held = self.bound.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.addresses.get(&self.address).copied().unwrap_or(0);
        let fits = held.all + more <= self.bound.all && own + more <= self.bound.each;
        if fits {
            held.all += more;
            held.addresses.insert(self.address, own + more);
            self.size += more;
        }
        fits
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.bound.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= self.size;
        if let Some(own) = held.addresses.get_mut(&self.address) {
            *own -= self.size;
            if *own == 0 {
                held.addresses.remove(&self.address);
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
    fn there_is_no_more_room_than_memory_and_file_descriptors_leave() {
        let connections = |memory, files| Room::within(memory, files).connections.all;
        assert_eq!(connections(usize::MAX, usize::MAX), 20_000);
        assert_eq!(connections(usize::MAX, 1024), 768);
        assert_eq!(connections(256 << 20, usize::MAX), 2457);
        assert_eq!(Room::within(256 << 20, usize::MAX).deliveries, 524_288);
        assert_eq!(Room::within(usize::MAX, usize::MAX).deliveries, 1 << 22);
        let bodies = |memory| {
            let bound = Room::within(memory, usize::MAX).bodies;
            (bound.all >> 20, bound.each >> 20)
        };
        assert_eq!(bodies(usize::MAX), (256, 64));
        assert_eq!(bodies(512 << 20), (128, 32));
        assert_eq!(bodies(128 << 20), (32, 10), "less, and the largest body would never be taken");
    }

    #[test]
    fn what_is_dropped_is_room_again() {
        let room = Room::within(4 << 20, 4);
        let mut bodies = [1, 2].map(|last| room.body(address(last)));
        assert!(bodies.iter_mut().all(|body| body.grow(400_000) && body.grow(100_000)));
        assert!(!room.body(address(3)).grow(100_000));
        let held: Vec<_> = (0..3).map(|_| room.connection(address(1)).unwrap()).collect();
        assert!(room.connection(address(2)).is_none());
        drop((bodies, held));
        assert!(room.body(address(3)).grow(1 << 20) && room.connection(address(3)).is_some());
        assert!(room.bodies.held.lock().unwrap().addresses.is_empty(), "nobody is remembered who holds nothing");
    }

    #[test]
    fn no_address_takes_the_room_of_others() {
        let bound = Bound::new(100, 25);
        let [mut first, mut second, mut other] = [1, 1, 2].map(|last| bound.place(address(last)));
        assert!(first.grow(20) && second.grow(5));
        assert!(!second.grow(1) && !first.grow(1), "it has its share");
        assert!(other.grow(25));
        drop(first);
        assert!(second.grow(20) && !second.grow(1), "the share is free again, and no more");
        assert!((bound.taken() - 0.5).abs() < 1e-9);
    }
}

//! How much callers may hold on to together. What is not bounded by what this process has would end it, and it would serve
//! nobody.

use std::fs::read_to_string;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections there may be at most.
const CONNECTIONS: usize = 20_000;
/// What an idle connection takes at most, in bytes.
const CONNECTION: usize = 40 << 10;
/// How much bodies may take at most, in bytes.
const BODIES: usize = 256 << 20;

/// Room for connections and bodies.
pub struct Room {
    connections: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
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
    /// Half of the memory is for connections and a quarter for bodies. A quarter of the file descriptors is for deliveries:
    /// who only holds connections must not keep others from their targets.
    fn within(memory: usize, files: usize) -> Self {
        let connections = CONNECTIONS.min(memory / 2 / CONNECTION).min(files / 4 * 3);
        let bodies = BODIES.min(memory / 4);
        Self { connections: Arc::new(Semaphore::new(connections)), bodies: Arc::new(Semaphore::new(bodies)) }
    }

    /// Room for one more connection.
    pub fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Room for so many bytes of a body.
    pub fn body(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.bodies.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_more_room_than_memory_and_file_descriptors_leave() {
        let connections = |memory, files| Room::within(memory, files).connections.available_permits();
        assert_eq!(connections(usize::MAX, usize::MAX), 20_000);
        assert_eq!(connections(usize::MAX, 1024), 768);
        assert_eq!(connections(128 << 20, usize::MAX), 1638);
        let room = Room::within(4 << 20, 4);
        let bodies: Vec<_> = (0..2).map(|_| room.body(500_000).unwrap()).collect();
        assert!(room.body(100_000).is_none());
        let held: Vec<_> = (0..3).map(|_| room.connection().unwrap()).collect();
        assert!(room.connection().is_none());
        drop((bodies, held));
        assert!(room.body(1 << 20).is_some() && room.connection().is_some());
    }
}

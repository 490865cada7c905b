//! Requests that are for no webhook, or of no known client: anybody can send as many as they like, and each has a line in the audit log. So those beyond a
//! rate are only counted.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::edge::http::rate::RateLimit;

/// Lines per second, and those about one network.
const PER_SECOND: u32 = 200;
const PER_NETWORK_PER_SECOND: u32 = 100;

/// Which of them have a line.
pub struct UnassignedLines {
    rate: RateLimit,
    suppressed: AtomicU64,
}

impl Default for UnassignedLines {
    fn default() -> Self {
        Self { rate: RateLimit::new(PER_SECOND, PER_NETWORK_PER_SECOND), suppressed: AtomicU64::new(0) }
    }
}

impl UnassignedLines {
    /// Whether one more from this network has a line now.
    pub fn admits(&self, network: IpAddr, now: Instant) -> bool {
        let admitted = self.rate.admits(network, now) && self.rate.admits_verified(network, now);
        if !admitted {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// How many had none since this was asked last. Forgets networks that are quiet.
    pub fn take_suppressed(&self, now: Instant) -> u64 {
        self.rate.forget_idle(now);
        self.suppressed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_line_is_counted() {
        let (lines, now) = (UnassignedLines::default(), Instant::now());
        let written = |last: u8| (0..150).filter(|_| lines.admits([192, 0, 2, last].into(), now)).count();
        assert_eq!((written(1), written(2), written(3)), (100, 100, 0));
        assert_eq!((lines.take_suppressed(now), lines.take_suppressed(now)), (250, 0));
    }
}

//! A rate limit: the generic cell rate algorithm, for a service as a whole and for each address. Pure.
//!
//! The number of remembered addresses is limited; while that many are over their rate, no other is admitted. A library that
//! keeps every address it has seen would let callers fill the memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Maximum number of remembered addresses.
const MAX_SOURCES: usize = 10_000;
/// How much unused time may be saved up and used at once.
const BURST: Duration = Duration::from_secs(1);

/// A rate limit with its state.
#[derive(Debug)]
pub struct RateLimit {
    limits: (u32, u32),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next request would be due if all had been spread evenly.
    whole: Option<Instant>,
    sources: HashMap<IpAddr, Instant>,
}

impl RateLimit {
    /// Allows this many requests per second, and this many from one address.
    #[must_use]
    pub fn new(per_second: u32, per_source_per_second: u32) -> Self {
        Self { limits: (per_second, per_source_per_second), state: Mutex::default() }
    }

    /// Whether it has these limits.
    #[must_use]
    pub fn has(&self, per_second: u32, per_source_per_second: u32) -> bool {
        self.limits == (per_second, per_source_per_second)
    }

    /// Whether one more request is allowed now. A refused request does not count.
    pub fn admits(&self, source: IpAddr, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Some(whole) = next(state.whole, self.limits.0, now) else { return false };
        let Some(own) = next(state.sources.get(&source).copied(), self.limits.1, now) else { return false };
        if state.sources.len() >= MAX_SOURCES && !state.sources.contains_key(&source) {
            state.sources.retain(|_, at| *at > now);
            if state.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        state.whole = Some(whole);
        state.sources.insert(source, own);
        true
    }
}

fn next(expected: Option<Instant>, per_second: u32, now: Instant) -> Option<Instant> {
    let interval = Duration::from_secs(1) / per_second.max(1);
    let next = expected.map_or(now, |expected| expected.max(now)) + interval;
    (next <= now + BURST.max(interval)).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn nobody_gets_more_than_their_share() {
        let (rate, start) = (RateLimit::new(10, 4), Instant::now());
        let came = |source, at: Instant| (0..20).filter(|_| rate.admits(address(source), at)).count();
        assert_eq!(came(1, start), 4, "one address has its own bound");
        assert_eq!(came(2, start), 4);
        assert_eq!(came(3, start), 2, "the endpoint as a whole has one");
        assert_eq!(came(4, start + Duration::from_millis(500)), 4, "half a second later half of it is free");
        assert_eq!(came(1, start + Duration::from_secs(60)), 4, "silence does not add up");
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let (rate, start) = (RateLimit::new(100_000, 1), Instant::now());
        let from = |number: u32| IpAddr::from(number.to_be_bytes());
        let admitted = (0..20_000).filter(|number| rate.admits(from(*number), start)).count();
        assert_eq!(admitted, MAX_SOURCES);
        assert!(rate.admits(from(20_001), start + Duration::from_secs(2)), "those of before are forgotten");
        assert_eq!(rate.state.lock().sources.len(), 1);
    }
}

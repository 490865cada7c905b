//! How often an endpoint is called: the generic cell rate algorithm, for the endpoint as a whole and for each address. Pure.
//!
//! Of addresses only so many are remembered; while that many are over their rate, no other is let in. A library that keeps
//! every address it ever saw would give callers a way to fill the memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many addresses of an endpoint are remembered at most.
const SOURCES: usize = 10_000;
/// How long somebody may have been silent for to call as often as that takes at once.
const BURST: Duration = Duration::from_secs(1);

/// The rate of one endpoint.
#[derive(Debug)]
pub struct Rate {
    limits: (u32, u32),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next delivery would come if all had come evenly.
    whole: Option<Instant>,
    sources: HashMap<IpAddr, Instant>,
}

impl Rate {
    /// At most this many deliveries in a second, and this many from one address.
    #[must_use]
    pub fn new(per_second: u32, per_source_per_second: u32) -> Self {
        Self { limits: (per_second, per_source_per_second), state: Mutex::default() }
    }

    /// Whether this rate has these limits.
    #[must_use]
    pub fn has(&self, per_second: u32, per_source_per_second: u32) -> bool {
        self.limits == (per_second, per_source_per_second)
    }

    /// Whether one more may come now. One that is refused does not count.
    pub fn admits(&self, source: IpAddr, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(whole) = next(state.whole, self.limits.0, now) else { return false };
        let Some(own) = next(state.sources.get(&source).copied(), self.limits.1, now) else { return false };
        if state.sources.len() >= SOURCES && !state.sources.contains_key(&source) {
            state.sources.retain(|_, at| *at > now);
            if state.sources.len() >= SOURCES {
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
        let (rate, start) = (Rate::new(10, 4), Instant::now());
        let came = |source, at: Instant| (0..20).filter(|_| rate.admits(address(source), at)).count();
        assert_eq!(came(1, start), 4, "one address has its own bound");
        assert_eq!(came(2, start), 4);
        assert_eq!(came(3, start), 2, "the endpoint as a whole has one");
        assert_eq!(came(4, start + Duration::from_millis(500)), 4, "half a second later half of it is free");
        assert_eq!(came(1, start + Duration::from_secs(60)), 4, "silence does not add up");
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let (rate, start) = (Rate::new(100_000, 1), Instant::now());
        let from = |number: u32| IpAddr::from(number.to_be_bytes());
        let admitted = (0..20_000).filter(|number| rate.admits(from(*number), start)).count();
        assert_eq!(admitted, SOURCES);
        assert!(rate.admits(from(20_001), start + Duration::from_secs(2)), "those of before are forgotten");
        assert_eq!(rate.state.lock().unwrap().sources.len(), 1);
    }
}

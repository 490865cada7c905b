//! Rate limits, by the generic cell rate algorithm. Pure.
//!
//! Attempts count for the network that they come from, and what was verified counts for the service as a whole. So attempts that
//! nobody signed take nothing from the rate of those that somebody signed. When very many fail, from however many networks, only
//! networks wait whose own attempts have just failed.
//!
//! The number of remembered networks is limited, so that callers do not fill the memory; those beyond it have no limit of their own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Maximum number of remembered networks.
const MAX_NETWORKS: usize = 10_000;
/// How much unused time may be saved up and used at once, and for how long a failed attempt counts against its network.
const BURST: Duration = Duration::from_secs(1);

/// A rate limit with its state.
#[derive(Debug)]
pub struct RateLimit {
    limits: (u32, u32),
    state: Mutex<State>,
}

/// Each time is when the next request would be due if all had been spread evenly.
#[derive(Debug, Default)]
struct State {
    verified: Option<Instant>,
    failed: Option<Instant>,
    networks: HashMap<IpAddr, Network>,
}

#[derive(Debug)]
struct Network {
    attempts: Instant,
    /// When its last attempt failed, if none has been verified since.
    failed: Option<Instant>,
}

impl Network {
    fn fails(&self, now: Instant) -> bool {
        self.failed.is_some_and(|at| now < at + BURST)
    }
}

impl RateLimit {
    /// Allows this many verified requests per second, and this many attempts from one network.
    #[must_use]
    pub fn new(per_second: u32, per_network_per_second: u32) -> Self {
        Self { limits: (per_second, per_network_per_second), state: Mutex::default() }
    }

    /// Whether it has these limits.
    #[must_use]
    pub fn has(&self, per_second: u32, per_network_per_second: u32) -> bool {
        self.limits == (per_second, per_network_per_second)
    }

    /// Whether one more attempt from a network is allowed now. A refused one does not count.
    pub fn admits(&self, network: IpAddr, now: Instant) -> bool {
        let state = &mut *self.state.lock();
        let known = state.networks.get_mut(&network);
        let Some(attempts) = next(known.as_ref().map(|known| known.attempts), self.limits.1, now) else { return false };
        match known {
            Some(known) if known.fails(now) && next(state.failed, self.limits.0, now).is_none() => false,
            Some(known) => {
                known.attempts = attempts;
                true
            }
            None => {
                if state.networks.len() < MAX_NETWORKS {
                    state.networks.insert(network, Network { attempts, failed: None });
                }
                true
            }
        }
    }

    /// Counts an admitted attempt that was not verified.
    pub fn failed(&self, network: IpAddr, now: Instant) {
        let state = &mut *self.state.lock();
        state.failed = next(state.failed, self.limits.0, now).or(state.failed);
        if let Some(known) = state.networks.get_mut(&network) {
            known.failed = Some(now);
        }
    }

    /// Whether one more verified request is allowed now. A refused one does not count.
    pub fn admits_verified(&self, network: IpAddr, now: Instant) -> bool {
        let state = &mut *self.state.lock();
        if let Some(known) = state.networks.get_mut(&network) {
            known.failed = None;
        }
        let verified = next(state.verified, self.limits.0, now);
        state.verified = verified.or(state.verified);
        verified.is_some()
    }

    /// Takes back a verified request that was a replay: whoever repeats what somebody else signed is like one who signs nothing.
    pub fn replayed(&self, network: IpAddr, now: Instant) {
        {
            let state = &mut *self.state.lock();
            state.verified = state.verified.and_then(|at| at.checked_sub(interval(self.limits.0)));
        }
        self.failed(network, now);
    }

    /// Forgets networks that have used nothing of their limit.
    pub fn forget_idle(&self, now: Instant) {
        let state = &mut *self.state.lock();
        state.networks.retain(|_, network| now < network.attempts || network.fails(now));
        if state.networks.len() < state.networks.capacity() / 4 {
            state.networks.shrink_to_fit();
        }
    }
}

/// The share that each of many has of a rate.
#[derive(Debug)]
pub struct Shares {
    per_second: u32,
    used: Mutex<HashMap<String, Instant>>,
}

impl Shares {
    /// Allows each this many requests per second. All names are remembered that have asked within the last second, so only those may
    /// ask that are known.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second, used: Mutex::default() }
    }

    /// Whether one more request is allowed now. A refused one does not count.
    pub fn admits(&self, name: &str, now: Instant) -> bool {
        let used = &mut *self.used.lock();
        let Some(next) = next(used.get(name).copied(), self.per_second, now) else { return false };
        match used.get_mut(name) {
            Some(used) => *used = next,
            None => _ = used.insert(name.to_owned(), next),
        }
        true
    }

    /// Forgets who has used nothing of its share.
    pub fn forget_idle(&self, now: Instant) {
        self.used.lock().retain(|_, used| now < *used);
    }
}

fn interval(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second.max(1)
}

fn next(expected: Option<Instant>, per_second: u32, now: Instant) -> Option<Instant> {
    let interval = interval(per_second);
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
    fn nobody_uses_up_the_share_of_another() {
        let (shares, now) = (Shares::new(10), Instant::now());
        let allowed = |name: &str, at| (0..20).filter(|_| shares.admits(name, at)).count();
        assert_eq!((allowed("a", now), allowed("b", now)), (10, 10));
        assert_eq!(allowed("a", now + Duration::from_millis(500)), 5);
        shares.forget_idle(now + Duration::from_millis(1200));
        assert_eq!(shares.used.lock().len(), 1, "one of them has used nothing lately");
    }

    /// How many of 20 requests that somebody signs are allowed.
    fn signed(rate: &RateLimit, source: u8, at: Instant) -> usize {
        let allowed = |_: &_| rate.admits(address(source), at) && rate.admits_verified(address(source), at);
        (0..20).filter(allowed).count()
    }

    /// How many of so many attempts that nobody signs are allowed.
    fn unsigned(rate: &RateLimit, source: u8, count: usize, at: Instant) -> usize {
        let allowed = |_: &_| {
            let allowed = rate.admits(address(source), at);
            if allowed {
                rate.failed(address(source), at);
            }
            allowed
        };
        (0..count).filter(allowed).count()
    }

    #[test]
    fn nobody_gets_more_than_their_share() {
        let (rate, start) = (RateLimit::new(10, 4), Instant::now());
        assert_eq!(signed(&rate, 1, start), 4, "one network has its own limit");
        assert_eq!(signed(&rate, 2, start), 4);
        assert_eq!(signed(&rate, 3, start), 2, "the endpoint as a whole has one");
        assert_eq!(signed(&rate, 4, start + Duration::from_millis(500)), 4, "half a second later half of it is free");
        assert_eq!(signed(&rate, 1, start + Duration::from_secs(60)), 4, "silence does not add up");
    }

    #[test]
    fn unsigned_attempts_use_nothing_of_the_rate_of_signed_ones() {
        let (rate, start) = (RateLimit::new(10, 10), Instant::now());
        for source in 1..=100 {
            assert!(unsigned(&rate, source, 50, start) <= 10);
        }
        assert_eq!(signed(&rate, 200, start), 10);
    }

    #[test]
    fn when_many_fail_only_networks_wait_whose_attempts_failed() {
        let (rate, start) = (RateLimit::new(10, 100), Instant::now());
        assert_eq!(unsigned(&rate, 1, 50, start), 10, "they fail no more often than the rate");
        assert_eq!(unsigned(&rate, 2, 50, start), 1, "the first of a network shows that it fails");
        assert!(rate.admits(address(3), start), "nothing is known against it");
        let later = start + Duration::from_millis(100);
        assert_eq!(unsigned(&rate, 1, 50, later), 1, "a tenth of a second frees a tenth of it");
        assert!(rate.admits(address(2), start + BURST), "a failure is forgotten");
    }

    #[test]
    fn a_replay_uses_nothing_of_the_rate() {
        let (rate, start) = (RateLimit::new(10, 100), Instant::now());
        for _ in 0..50 {
            assert!(rate.admits_verified(address(1), start));
            rate.replayed(address(1), start);
        }
        assert_eq!(signed(&rate, 2, start), 10);
    }

    #[test]
    fn many_networks_do_not_fill_the_memory_and_keep_nobody_out() {
        let (rate, start) = (RateLimit::new(100_000, 1), Instant::now());
        let from = |number: u32| IpAddr::from(number.to_be_bytes());
        assert!((0..20_000).all(|number| rate.admits(from(number), start)));
        assert_eq!(rate.state.lock().networks.len(), MAX_NETWORKS);
        rate.forget_idle(start + Duration::from_secs(2));
        assert!(rate.state.lock().networks.is_empty());
    }
}

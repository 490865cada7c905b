//! Whether a Redis evicts keys when its memory is full. It would forget deliveries of everybody, and their replays would be new. Pure.

use std::time::Duration;

/// How often Redis is asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// What the section `memory` of `INFO` says; `None` if it says nothing about it.
pub(super) fn evicts(info: &str) -> Option<bool> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let limited = field("maxmemory")?.trim() != "0";
    let policy = field("maxmemory_policy")?.trim();
    Some(limited && policy != "noeviction")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redis_with_a_limit_and_a_policy_evicts() {
        let info = |max: &str, policy: &str| {
            format!(
                "# Memory\r\nused_memory:1\r\nmaxmemory:{max}\r\nmaxmemory_human:0B\r\nmaxmemory_policy:{policy}\r\n"
            )
        };
        assert_eq!(evicts(&info("0", "noeviction")), Some(false));
        assert_eq!(evicts(&info("1048576", "noeviction")), Some(false));
        assert_eq!(evicts(&info("0", "allkeys-lru")), Some(false));
        for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random"] {
            assert_eq!(evicts(&info("1048576", policy)), Some(true), "{policy}");
        }
        assert_eq!(evicts("# Memory\r\n"), None);
    }
}

//! Timestamps in seconds since 1970, and whether they are near the clock.

use jiff::Timestamp;

use super::{Refusal, Window};

/// Reads 1 to 12 digits, without sign and without leading zeros.
pub(super) fn parse(text: &str) -> Result<Timestamp, Refusal> {
    let digits = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.len() > 1 && text.starts_with('0') {
        return Err(Refusal::MalformedHeader);
    }
    text.parse().map_err(|_| Refusal::MalformedHeader).and_then(from_seconds)
}

/// The moment so many seconds after 1970. What no calendar holds is too far ahead, or too long ago.
pub(super) fn from_seconds(seconds: i64) -> Result<Timestamp, Refusal> {
    let out_of_range = if seconds > 0 { Refusal::TooNew } else { Refusal::TooOld };
    Timestamp::from_second(seconds).map_err(|_| out_of_range)
}

/// Refuses what is further from `now` than the window allows; its bounds are still in it.
pub(super) fn within(signed: Timestamp, window: &Window, now: Timestamp) -> Result<Timestamp, Refusal> {
    if now.duration_since(signed) > window.past {
        Err(Refusal::TooOld)
    } else if signed.duration_since(now) > window.future {
        Err(Refusal::TooNew)
    } else {
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_timestamp_is_written_in_one_way() {
        assert_eq!(parse("0").unwrap().as_second(), 0);
        assert_eq!(parse("1614265330").unwrap().as_second(), 1_614_265_330);
        for wrong in ["", "01", "-1", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "1234567890123", "١"] {
            assert_eq!(parse(wrong), Err(Refusal::MalformedHeader), "{wrong:?}");
        }
        assert_eq!(parse("999999999999"), Err(Refusal::TooNew));
        assert_eq!(from_seconds(i64::MAX), Err(Refusal::TooNew));
        assert_eq!(from_seconds(i64::MIN), Err(Refusal::TooOld));
    }

    #[test]
    fn the_bounds_of_the_window_are_in_it() {
        let window = Window { past: SignedDuration::from_secs(300), future: SignedDuration::from_secs(60) };
        let at = |second| Timestamp::from_second(second).unwrap();
        let now = at(1_000_000);
        assert_eq!(within(at(1_000_000 - 300), &window, now), Ok(at(1_000_000 - 300)));
        assert_eq!(within(at(1_000_000 - 301), &window, now), Err(Refusal::TooOld));
        assert_eq!(within(at(1_000_000 + 60), &window, now), Ok(at(1_000_000 + 60)));
        assert_eq!(within(at(1_000_000 + 61), &window, now), Err(Refusal::TooNew));
        assert_eq!(within(Timestamp::MIN, &window, Timestamp::MAX), Err(Refusal::TooOld));
        assert_eq!(within(Timestamp::MAX, &window, Timestamp::MIN), Err(Refusal::TooNew));
    }
}

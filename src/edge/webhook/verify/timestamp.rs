//! Timestamps in seconds since 1970, and whether they are near the clock.

use jiff::{SignedDuration, Timestamp};

use super::error::VerifyError;
use crate::api::Tolerance;
use crate::domain::invalid_field::InvalidField;
use crate::domain::schedule::duration;

/// How far a signed timestamp may be from the clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// How old it may be.
    pub past: SignedDuration,
    /// How far ahead it may be.
    pub future: SignedDuration,
}

impl Window {
    /// Compiles the tolerance of an endpoint.
    ///
    /// # Errors
    /// Names the field that is invalid.
    pub fn compile(tolerance: Option<&Tolerance>) -> Result<Self, InvalidField> {
        let Tolerance { past, future } = tolerance.cloned().unwrap_or_default();
        Ok(Self {
            past: duration("tolerance.past", past.as_deref(), SignedDuration::from_mins(5))?,
            future: duration("tolerance.future", future.as_deref(), SignedDuration::from_mins(1))?,
        })
    }
}

/// Reads 1 to 12 digits, without sign and without leading zeros.
pub(super) fn parse(text: &str) -> Result<Timestamp, VerifyError> {
    let digits = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.len() > 1 && text.starts_with('0') {
        return Err(VerifyError::MalformedHeader);
    }
    text.parse().map_err(|_| VerifyError::MalformedHeader).and_then(from_seconds)
}

/// The time so many seconds after 1970. A time that is out of range is too new or too old.
pub(super) fn from_seconds(seconds: i64) -> Result<Timestamp, VerifyError> {
    let out_of_range = if seconds > 0 { VerifyError::TooNew } else { VerifyError::TooOld };
    Timestamp::from_second(seconds).map_err(|_| out_of_range)
}

/// Refuses a time that is further from `now` than the window allows; its limits are still allowed.
pub(super) fn within(signed: Timestamp, window: &Window, now: Timestamp) -> Result<Timestamp, VerifyError> {
    if now.duration_since(signed) > window.past {
        Err(VerifyError::TooOld)
    } else if signed.duration_since(now) > window.future {
        Err(VerifyError::TooNew)
    } else {
        Ok(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_in_one_way() {
        assert_eq!(parse("0").unwrap().as_second(), 0);
        assert_eq!(parse("1614265330").unwrap().as_second(), 1_614_265_330);
        for wrong in ["", "01", "-1", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "1234567890123", "١"] {
            assert_eq!(parse(wrong), Err(VerifyError::MalformedHeader), "{wrong:?}");
        }
        assert_eq!(parse("999999999999"), Err(VerifyError::TooNew));
        assert_eq!(from_seconds(i64::MAX), Err(VerifyError::TooNew));
        assert_eq!(from_seconds(i64::MIN), Err(VerifyError::TooOld));
    }

    #[test]
    fn the_bounds_of_the_window_are_in_it() {
        let window = Window { past: SignedDuration::from_secs(300), future: SignedDuration::from_secs(60) };
        let at = |second| Timestamp::from_second(second).unwrap();
        let now = at(1_000_000);
        assert_eq!(within(at(1_000_000 - 300), &window, now), Ok(at(1_000_000 - 300)));
        assert_eq!(within(at(1_000_000 - 301), &window, now), Err(VerifyError::TooOld));
        assert_eq!(within(at(1_000_000 + 60), &window, now), Ok(at(1_000_000 + 60)));
        assert_eq!(within(at(1_000_000 + 61), &window, now), Err(VerifyError::TooNew));
        assert_eq!(within(Timestamp::MIN, &window, Timestamp::MAX), Err(VerifyError::TooOld));
        assert_eq!(within(Timestamp::MAX, &window, Timestamp::MIN), Err(VerifyError::TooNew));
    }
}

//! Maintenance windows: the times of the week when renewals may take place.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::invalid_field::InvalidField;
use crate::api::{Day, RotationWindow};

/// A validated [`RotationWindow`].
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    days: Vec<Weekday>,
    start: Time,
    duration: SignedDuration,
    zone: TimeZone,
}

impl Window {
    /// Checks the rules that the schema cannot express.
    ///
    /// # Errors
    /// The field that is invalid.
    pub fn new(window: &RotationWindow) -> Result<Self, InvalidField> {
        let invalid = |message| InvalidField::new("windows", message);
        let zone_name = window.time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(zone_name).map_err(|_| {
            invalid(format!("the time zone \"{zone_name}\" is not known; use an IANA name such as Europe/Berlin"))
        })?;
        let start = Time::strptime("%H:%M", &window.start)
            .map_err(|_| invalid(format!("the start \"{}\" is not a time; write HH:MM", window.start)))?;
        Ok(Self {
            days: window.days.iter().copied().map(weekday).collect(),
            start,
            duration: parse_duration("windows", &window.duration)?,
            zone,
        })
    }

    /// Start and end of the opening that includes `now`, or else of the next one.
    fn opening(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let today = now.to_zoned(self.zone.clone()).date();
        // An opening of yesterday may last until today, and the same weekday returns after seven days.
        (-1..=8)
            .filter_map(|offset| today.checked_add(Span::new().days(offset)).ok())
            .filter(|date| self.days.is_empty() || self.days.contains(&date.weekday()))
            .filter_map(|date| date.to_datetime(self.start).to_zoned(self.zone.clone()).ok())
            .map(|opens| opens.timestamp())
            .filter_map(|opens| Some((opens, opens.checked_add(self.duration).ok()?)))
            .find(|(_, closes)| *closes > now)
    }
}

/// When renewals may take place next: `now` if a window is open or there are no windows.
#[must_use]
pub fn next_opening(windows: &[Window], now: Timestamp) -> Timestamp {
    windows.iter().filter_map(|window| window.opening(now)).map(|(opens, _)| opens.max(now)).min().unwrap_or(now)
}

/// The duration in a field of a spec, or the default if the field is not set.
///
/// # Errors
/// When the text is not a duration.
pub fn duration(field: &str, text: Option<&str>, default: SignedDuration) -> Result<SignedDuration, InvalidField> {
    text.map_or(Ok(default), |text| parse_duration(field, text))
}

/// Parses a duration in the notation of Go and Kubernetes, such as `1h30m`.
fn parse_duration(field: &str, text: &str) -> Result<SignedDuration, InvalidField> {
    let invalid = |_| InvalidField::new(field, format!("\"{text}\" is not a duration; write one such as 24h or 90m"));
    text.parse().map_err(invalid)
}

fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(days: &[Day], start: &str, duration: &str, zone: &str) -> Window {
        Window::new(&RotationWindow {
            days: days.to_vec(),
            start: start.into(),
            duration: duration.into(),
            time_zone: Some(zone.into()),
        })
        .unwrap()
    }

    #[test]
    fn a_window_follows_its_time_zone_through_daylight_saving() {
        let windows = [window(&[], "02:00", "3h", "Europe/Berlin")];
        assert_eq!(next_opening(&windows, at("2026-07-01T12:00:00Z")), at("2026-07-02T00:00:00Z"));
        assert_eq!(next_opening(&windows, at("2026-12-01T12:00:00Z")), at("2026-12-02T01:00:00Z"));
        // 02:00 does not exist on this day; the window opens when the clock has jumped.
        assert_eq!(next_opening(&windows, at("2026-03-28T12:00:00Z")), at("2026-03-29T01:00:00Z"));
    }

    #[test]
    fn a_window_over_midnight_stays_open() {
        let windows = [window(&[Day::Mon], "23:00", "3h", "UTC")];
        let tuesday = at("2026-11-24T01:30:00Z");
        assert_eq!(next_opening(&windows, tuesday), tuesday);
        assert_eq!(next_opening(&windows, at("2026-11-24T02:00:00Z")), at("2026-11-30T23:00:00Z"));
    }

    #[test]
    fn the_earliest_window_counts_and_none_means_now() {
        let now = at("2026-11-24T12:00:00Z");
        let windows = [window(&[Day::Fri], "02:00", "1h", "UTC"), window(&[Day::Wed], "02:00", "1h", "UTC")];
        assert_eq!(next_opening(&windows, now), at("2026-11-25T02:00:00Z"));
        assert_eq!(next_opening(&[], now), now);
    }

    #[test]
    fn an_unknown_time_zone_is_named_in_the_error() {
        let refused = Window::new(&RotationWindow {
            days: vec![],
            start: "02:00".into(),
            duration: "1h".into(),
            time_zone: Some("Europe/Atlantis".into()),
        });
        assert!(refused.unwrap_err().message.contains("Europe/Atlantis"));
    }
}

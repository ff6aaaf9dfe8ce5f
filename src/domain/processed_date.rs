use std::{fmt, str::FromStr};

use jiff::{Span, Timestamp, ToSpan, civil::Date, tz::TimeZone};

/// The UTC day for which Partner Center aggregated usage. It prints as `YYYY-MM-DD`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessedDate(Date);

/// The day that days are counted from.
const EPOCH: Date = jiff::civil::date(1970, 1, 1);

/// The text is no calendar date in the form `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a calendar date in the form YYYY-MM-DD, such as 2017-03-09")]
pub struct InvalidProcessedDate;

impl ProcessedDate {
    /// The first day of the calendar.
    pub const MIN: Self = Self(Date::MIN);

    /// The last day of the calendar.
    pub const MAX: Self = Self(Date::MAX);

    /// The months for which Partner Center keeps dates.
    pub const RETENTION_MONTHS: i32 = 13;

    /// Reads `YYYY-MM-DD` and nothing else: no time, no offset, no missing zeros.
    ///
    /// # Errors
    ///
    /// [`InvalidProcessedDate`] for another form, and for a day that no calendar has.
    pub fn parse(text: &str) -> Result<Self, InvalidProcessedDate> {
        let shape = text.len() == 10
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        if !shape {
            return Err(InvalidProcessedDate);
        }
        Date::from_str(text)
            .map(Self)
            .map_err(|_| InvalidProcessedDate)
    }

    /// The UTC day that contains `instant`.
    pub fn from_timestamp(instant: Timestamp) -> Self {
        Self(instant.to_zoned(TimeZone::UTC).date())
    }

    /// The day before; `None` before the first that the calendar has.
    pub fn previous(self) -> Option<Self> {
        self.0.yesterday().ok().map(Self)
    }

    /// The day after; `None` after the last that the calendar has.
    pub fn next(self) -> Option<Self> {
        self.0.tomorrow().ok().map(Self)
    }

    /// Returns the number of days from this date to another; negative if that is earlier.
    pub fn days_until(self, other: Self) -> i32 {
        (other.0 - self.0).get_days()
    }

    /// Returns the date so many days later; `None` if the calendar does not have it.
    pub fn plus_days(self, days: i32) -> Option<Self> {
        self.0.checked_add(days.days()).ok().map(Self)
    }

    /// The same day so many months before, or the last of its month.
    pub fn months_before(self, months: i32) -> Self {
        Self(self.0.saturating_sub(months.months()))
    }

    /// The number of days since 1970-01-01; negative before.
    pub fn days_since_epoch(self) -> i64 {
        self.0.duration_since(EPOCH).as_hours() / 24
    }

    /// The day so many days after 1970-01-01; `None` where the calendar has none.
    pub fn from_days_since_epoch(days: i64) -> Option<Self> {
        let days = Span::new().try_days(days).ok()?;
        EPOCH.checked_add(days).ok().map(Self)
    }

    /// Midnight UTC, at the beginning of the day.
    pub fn start(self) -> Timestamp {
        // Only the very first and last days that the calendar type can hold lie outside the range
        // of instants; a date that was parsed or observed never is one of them.
        self.0
            .to_zoned(TimeZone::UTC)
            .map_or(Timestamp::MIN, |midnight| midnight.timestamp())
    }
}

impl fmt::Display for ProcessedDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ProcessedDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The instant that a row was processed at, as Partner Center sent it.
///
/// Its time part is not always midnight, and its offset not always zero; the UTC day of it is the
/// [`ProcessedDate`] that the row is filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessedAt(pub Timestamp);

impl ProcessedAt {
    /// The UTC day of this instant.
    pub fn date(self) -> ProcessedDate {
        ProcessedDate::from_timestamp(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_calendar_date_parses_and_prints_the_same() {
        assert_eq!(
            ProcessedDate::parse("2017-03-09").unwrap().to_string(),
            "2017-03-09"
        );
    }

    #[test]
    fn invalid_dates_and_formats_are_rejected() {
        for text in [
            "",
            "2026-02-30",
            "2026-13-01",
            "2026-2-3",
            "20260203",
            "2026-02-03T00:00:00Z",
            "2026-02-03+14:00",
            "+02026-02-03",
            "2026/02/03",
            "２026-02-03",
        ] {
            assert_eq!(
                ProcessedDate::parse(text),
                Err(InvalidProcessedDate),
                "{text:?}"
            );
        }
    }

    #[test]
    fn midnight_far_east_is_the_day_before_in_utc() {
        let processed: Timestamp = "2017-03-10T00:00:00+14:00".parse().unwrap();

        assert_eq!(ProcessedAt(processed).date().to_string(), "2017-03-09");
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn the_day_of_an_instant_begins_less_than_a_day_before_it(second in -62_135_596_800_i64..253_402_200_000) {
            let instant = Timestamp::from_second(second).unwrap();

            let start = ProcessedDate::from_timestamp(instant).start();

            prop_assert!(start <= instant && instant.as_second() - start.as_second() < 86_400);
        }

        #[test]
        fn a_day_is_found_by_its_number(days in -4_371_587_i64..2_932_896) {
            let date = ProcessedDate::from_days_since_epoch(days).unwrap();

            prop_assert_eq!(date.days_since_epoch(), days);
            prop_assert_eq!(date.start().as_second(), days * 86_400);
        }

        #[test]
        fn a_parsed_date_prints_the_same(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]") {
            if let Ok(date) = ProcessedDate::parse(&text) {
                prop_assert_eq!(date.to_string(), text);
            }
        }
    }
}

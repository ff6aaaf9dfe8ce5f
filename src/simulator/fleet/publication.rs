//! The times at which processed dates are published.

use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::Offset};

use super::{PROCESSING_LAG_DAYS, day_before, is_weekend, seeded_draw::SeededDraw};

/// The earliest hour of publication, in UTC.
const FIRST_HOUR: i64 = 3;

/// The days over which the hour moves from the earliest to the latest, and back again.
const DRIFT_DAYS: i64 = 140;

/// The distance between the earliest and the latest hour.
const DRIFT_MINUTES: i64 = 8 * 60;

/// The delay of the dates that are published together with the next one: one of so many.
const LATE_ONE_OF: u64 = 40;

/// Returns the newest date that is published at `now`.
pub(in crate::simulator) fn newest_published(seed: u64, now: Timestamp) -> Date {
    let mut date = Offset::UTC.to_datetime(now).date();
    while published_at(seed, date) > now {
        date = day_before(date);
    }
    date
}

/// Returns the time at which a date is published: three days later, at an hour that drifts slowly, varies
/// by up to 90 minutes, and is later for weekends.
fn published_at(seed: u64, date: Date) -> Timestamp {
    let day = date.saturating_add(PROCESSING_LAG_DAYS.days());
    let number = Date::MIN.duration_until(day).as_hours() / 24;
    let draw = SeededDraw::new(seed)
        .with_text("published")
        .with_word(number.unsigned_abs());
    let half = DRIFT_DAYS / 2;
    let drifted = (number % DRIFT_DAYS - half).abs() * DRIFT_MINUTES / half;
    let varied = draw.with_text("minute").number_below(90).cast_signed();
    let weekend = if is_weekend(day) { 3 * 60 } else { 0 };
    let late = if draw.with_text("late").number_below(LATE_ONE_OF) == 0 {
        24 * 60
    } else {
        0
    };
    let minutes = FIRST_HOUR * 60 + drifted + varied + weekend + late;
    let midnight = Offset::UTC
        .to_timestamp(day.at(0, 0, 0, 0))
        .unwrap_or(Timestamp::MAX);
    midnight
        .checked_add(SignedDuration::from_mins(minutes))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::{civil::date, tz::TimeZone};

    use super::*;

    #[test]
    fn dates_are_published_in_their_order_at_drifting_times() {
        let days = date(2026, 1, 1).series(1.day()).take(365);

        let minutes: Vec<_> = days
            .map(|day| {
                let midnight = day
                    .saturating_add(3.days())
                    .to_zoned(TimeZone::UTC)
                    .unwrap();
                published_at(1, day)
                    .duration_since(midnight.timestamp())
                    .as_mins()
            })
            .collect();

        assert!(
            minutes
                .iter()
                .all(|minute| (3 * 60..40 * 60).contains(minute))
        );
        let (least, most) = (minutes.iter().min().unwrap(), minutes.iter().max().unwrap());
        assert!(most - least > 6 * 60, "{minutes:?}");
    }

    #[test]
    fn the_newest_date_never_goes_backwards() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let newest: Vec<_> = (0..365 * 24)
            .map(|hour| newest_published(1, start + SignedDuration::from_hours(hour)))
            .collect();

        assert!(newest.is_sorted());
        let mut dates = newest;
        dates.dedup();
        assert!((340..365).contains(&dates.len()), "{} of 365", dates.len());
    }
}

//! The times at which a newer processed date is looked for.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

/// The times of the checks for a newer processed date.
///
/// Checks are a fixed interval apart until the usual time of publication is known. From then on they
/// are further apart at other times of the day.
#[derive(Clone, Debug)]
pub(super) struct CheckSchedule {
    interval: Duration,
    /// The publications that were observed last, oldest first.
    observed: VecDeque<ObservedPublication>,
}

/// A new date appeared between two checks.
#[derive(Clone, Copy, Debug)]
struct ObservedPublication {
    last_without: Timestamp,
    found: Timestamp,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// === impl CheckSchedule ===

impl CheckSchedule {
    /// The number of observed dates from which the usual time is known.
    const MIN_OBSERVED: usize = 7;

    /// The number of observed dates that count, so that a drift is followed.
    const MAX_OBSERVED: usize = 14;

    /// The longest time between two checks, in intervals.
    const MAX_INTERVALS: u32 = 6;

    /// The shortest time around an observed publication that counts as usual.
    const MIN_MARGIN: Duration = Duration::from_secs(60 * 60);

    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            observed: VecDeque::new(),
        }
    }

    /// Records that a new date was found, and that the check before did not find it.
    pub(super) fn observe(&mut self, last_without: Timestamp, found: Timestamp) {
        if self.observed.len() == Self::MAX_OBSERVED {
            self.observed.pop_front();
        }
        self.observed.push_back(ObservedPublication {
            last_without,
            found,
        });
    }

    /// Returns the time until the next check. `fraction` in `[0, 1)` lengthens it by up to a tenth.
    pub(super) fn until_next_check(&self, now: Timestamp, fraction: f64) -> Duration {
        let shortest = self.interval.mul_f64(1.0 + fraction / 10.0);
        if self.observed.len() < Self::MIN_OBSERVED {
            return shortest;
        }
        let longest = self.interval * Self::MAX_INTERVALS;
        let steps = (0..).map(|step| shortest + self.interval / 4 * step);
        let mut delays = steps.take_while(|delay| *delay < longest);
        delays
            .find(|delay| self.is_usual(now + *delay))
            .unwrap_or(longest)
    }

    /// Returns true if a date was published about this time of day lately.
    fn is_usual(&self, time: Timestamp) -> bool {
        let margin = Self::MIN_MARGIN.max(self.interval);
        self.observed.iter().any(|publication| {
            let begin = time_of_day(publication.last_without - margin);
            let found = publication.found.duration_since(publication.last_without);
            let window = found.unsigned_abs() + 2 * margin;
            let since_begin = (time_of_day(time) + DAY - begin).as_secs() % DAY.as_secs();
            Duration::from_secs(since_begin) <= window
        })
    }
}

fn time_of_day(time: Timestamp) -> Duration {
    let seconds = time.as_second().rem_euclid(24 * 60 * 60);
    Duration::from_secs(seconds.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn checks_are_an_interval_apart_until_a_week_was_observed() {
        let mut schedule = CheckSchedule::new(HOUR);
        for day in 0..6 {
            let found = start() + DAY * day + HOUR * 5;
            schedule.observe(found - HOUR, found);
        }

        assert_eq!(schedule.until_next_check(start(), 0.0), HOUR);
        assert_eq!(schedule.until_next_check(start(), 0.5), HOUR.mul_f64(1.05));
    }

    #[test]
    fn a_check_is_never_further_away_than_six_intervals() {
        let mut schedule = CheckSchedule::new(HOUR);
        for day in 0..7 {
            let found = start() + DAY * day + HOUR * 5;
            schedule.observe(found - HOUR, found);
        }

        let at = |hour: u32| schedule.until_next_check(start() + HOUR * hour, 0.0);

        assert_eq!(at(8), HOUR * 6);
        assert_eq!(at(4), HOUR, "the usual time");
        assert!(at(22) < HOUR * 6, "the usual time begins earlier");
    }

    /// A year in which dates are published once a day, at a time that drifts by an hour and a half a
    /// month, and an hour either way from day to day.
    #[test]
    fn a_year_with_drifting_publications_costs_few_calls_and_little_lag() {
        let published_at = |day: u32| {
            let noise = Duration::from_secs(u64::from(day) * 2_654_435_761 % 7_200);
            start() + DAY * day + HOUR * 3 + Duration::from_secs(180) * day + noise
        };
        let mut schedule = CheckSchedule::new(HOUR);
        let (mut now, mut last_check, mut newest) = (start(), start(), 0);
        let (mut checks, mut lags) = (0, Vec::new());
        while now < start() + DAY * 365 {
            checks += 1;
            let mut found = false;
            while published_at(newest) <= now {
                lags.push(now.duration_since(published_at(newest)).unsigned_abs());
                newest += 1;
                found = true;
            }
            if found {
                schedule.observe(last_check, now);
            }
            last_check = now;
            now += schedule.until_next_check(now, 0.5);
        }

        lags.sort_unstable();
        let median = lags[lags.len() / 2];
        println!(
            "{checks} checks, lag {median:?} at the median, {:?} at most",
            lags.last()
        );
        assert!(checks < 365 * 24 / 2, "{checks}");
        assert!(median <= HOUR, "{median:?}");
        assert!(*lags.last().unwrap() <= HOUR * 6 + HOUR / 2);
    }
}

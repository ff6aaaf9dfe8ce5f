//! Durations in words, for the page and the command line.

use std::time::Duration;

/// Formats a duration in the largest suitable unit, rounded down: `56 s`, `14 min`, `3 h`,
/// `8 days`, `2 years`.
pub(crate) fn format_duration(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;

    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / MINUTE, "min"),
        7_200..172_800 => (seconds / HOUR, "h"),
        172_800..63_072_000 => (seconds / DAY, "days"),
        _ => (seconds / YEAR, "years"),
    };
    format!("{count} {unit}")
}

/// Formats an age: `just now` or `14 min ago`.
pub(crate) fn format_age(age: Duration) -> String {
    if age < Duration::from_secs(5) {
        "just now".to_owned()
    } else {
        format!("{} ago", format_duration(age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_uses_the_largest_suitable_unit() {
        for (seconds, expected) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (3_599, "59 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 days"),
            (63_071_999, "729 days"),
            (63_072_000, "2 years"),
        ] {
            assert_eq!(format_duration(Duration::from_secs(seconds)), expected);
        }
    }
}

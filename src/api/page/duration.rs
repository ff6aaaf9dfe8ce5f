use std::time::Duration;

/// A duration as people say it, in its largest unit, rounded down: `3 minutes`.
pub(super) fn in_words(duration: Duration) -> String {
    const UNITS: [(u64, &str); 5] = [
        (365 * 86_400, "year"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];

    let seconds = duration.as_secs();
    let fits = UNITS.into_iter().find(|(length, _)| seconds >= *length);
    let (length, unit) = fits.unwrap_or((1, "second"));
    match seconds / length {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_unit_is_enough() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3_599, "59 minutes"),
            (7_200, "2 hours"),
            (86_400, "1 day"),
            (700_000, "8 days"),
            (70_000_000, "2 years"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), expected);
        }
    }
}

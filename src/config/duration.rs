//! Durations as people write them: `30s`, `15m`, `1h30m`.

use std::time::Duration;

use super::invalid_value::InvalidValue;

/// Largest first, in milliseconds; the smallest is one of them.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Ten years: longer ones are typing errors, and an instant plus this one is still an instant.
const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Reads a duration of the command line, or says why it is none.
pub(crate) fn from_flag(text: &str) -> Result<Duration, String> {
    parse(text).map_err(|refusal| format!("{refusal}; expected a duration such as 30s"))
}

pub(super) fn parse(text: &str) -> Result<Duration, InvalidValue> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is a bare number, without a unit".into());
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    // Each search goes on where the last one ended: no unit twice, the larger one first.
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let (number, tail) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, tail) = split_where(tail, |c| c.is_ascii_digit());
        let Some((_, millis)) = units.find(|(name, _)| *name == unit) else {
            return Err(refuse_unit(unit));
        };
        let number: u64 = number.parse().map_err(|_| "is not a duration")?;
        total = number
            .checked_mul(*millis)
            .and_then(|millis| total.checked_add(Duration::from_millis(millis)))
            .filter(|total| *total <= LONGEST)
            .ok_or("is longer than 3650d")?;
        rest = tail;
    }
    Ok(total)
}

/// The shortest spelling that [`parse`] reads back; what is below a millisecond is dropped.
pub(crate) fn print(duration: &Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (name, millis) in UNITS {
        let count = rest / u128::from(millis);
        rest %= u128::from(millis);
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

fn split_where(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

fn refuse_unit(unit: &str) -> InvalidValue {
    if unit.is_empty() {
        "ends in a number without a unit".into()
    } else if UNITS.iter().any(|(name, _)| *name == unit) {
        format!("has `{unit}` twice or after a smaller unit").into()
    } else {
        "is not a duration".into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90m", 5_400_000),
            ("0s", 0),
            ("3650d", 315_360_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, reason) in [
            ("", "empty"),
            ("15", "bare number"),
            ("0", "bare number"),
            ("1h30", "without a unit"),
            ("30m1h", "after a smaller unit"),
            ("1h1h", "twice"),
            ("1.5h", "not a duration"),
            ("-5s", "not a duration"),
            ("+5s", "not a duration"),
            ("5 s", "not a duration"),
            ("5S", "not a duration"),
            ("s", "not a duration"),
            ("5w", "not a duration"),
            ("٥s", "not a duration"),
            ("3650d1ms", "longer than"),
            ("99999999999999999d", "longer than"),
            ("99999999999999999999999s", "not a duration"),
        ] {
            let refusal = parse(text).unwrap_err().to_string();

            assert!(refusal.contains(reason), "{text:?}: {refusal}");
        }
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn what_is_printed_parses_back(millis in 0..=315_360_000_000_u64) {
            let duration = Duration::from_millis(millis);

            prop_assert_eq!(parse(&print(&duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "([0-9]{0,22}(d|h|m|s|ms|.)?){0,4}") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&print(&duration)), Ok(duration));
            }
        }
    }
}

//! Sizes in bytes as people write them: `256MiB`, `1GB`, `4096`.

use super::invalid_value::InvalidValue;

/// Binary units, largest first: what a size is printed in.
const BINARY: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

const OTHER: [(&str, u64); 6] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

pub(super) fn parse(text: &str) -> Result<u64, InvalidValue> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("is not a size".into());
    }
    let (_, bytes) = BINARY
        .iter()
        .chain(&OTHER)
        .find(|(name, _)| *name == unit)
        .ok_or("has an unknown unit")?;
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*bytes))
        .ok_or_else(|| "is too large".into())
}

/// In the largest binary unit that divides it, else in bytes.
pub(super) fn print(size: u64) -> String {
    BINARY
        .iter()
        .find(|(_, bytes)| size > 0 && size.is_multiple_of(*bytes))
        .map_or_else(
            || size.to_string(),
            |(name, bytes)| format!("{}{name}", size / bytes),
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("32MiB", 32 << 20),
            ("64KiB", 64 << 10),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
            ("1MB", 1_000_000),
            ("5KB", 5_000),
            ("4096", 4096),
            ("4096B", 4096),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        for (text, reason) in [
            ("", "not a size"),
            ("MiB", "not a size"),
            ("-1", "not a size"),
            ("1.5MiB", "unknown unit"),
            ("1 MiB", "unknown unit"),
            ("1M", "unknown unit"),
            ("1mib", "unknown unit"),
            ("99999999999999999999", "too large"),
            ("99999999999TiB", "too large"),
        ] {
            let refusal = parse(text).unwrap_err().to_string();

            assert!(refusal.contains(reason), "{text:?}: {refusal}");
        }
    }

    proptest! {
        #![proptest_config(crate::proptest_support::proptest_config())]

        #[test]
        fn what_is_printed_parses_back(number: u32, unit in 0..=40_u32) {
            let size = u64::from(number) << unit.min(31);

            prop_assert_eq!(parse(&print(size)), Ok(size));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9]{0,22}([KMGT]i?B?|.{0,3})") {
            if let Ok(size) = parse(&text) {
                prop_assert_eq!(parse(&print(size)), Ok(size));
            }
        }
    }
}

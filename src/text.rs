//! Text for people: printable lines, error chains, durations, and text folded for search.

use std::{borrow::Cow, error::Error, time::Duration};

use icu_normalizer::DecomposingNormalizerBorrowed;

/// Returns one line of at most `longest` characters without control characters; `…` marks a cut.
pub fn to_printable_line(text: &str, longest: usize) -> String {
    let mut line: String = text
        .chars()
        .map(|character| match character {
            '\n' | '\r' | '\t' => ' ',
            other => other,
        })
        .filter(|character| !character.is_control())
        .take(longest + 1)
        .collect();
    if let Some((cut, _)) = line.char_indices().nth(longest) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// Joins an error and its sources into one line.
pub fn error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

/// Returns the innermost source of an error: what the system said.
pub fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// Returns text of a caller for a message or a log, printable and shortened.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 200;

    if text.len() <= LONGEST && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(to_printable_line(text, LONGEST))
}

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

/// Returns the text in lower case and without accents: `Łódź` becomes `lodz`.
pub(crate) fn fold_case_and_accents(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize_iter(text.chars());
    let letters = decomposed.filter(|character| !is_accent(*character));
    for letter in letters.flat_map(char::to_lowercase) {
        match fold_letter(letter) {
            Some(plain) => folded.push_str(plain),
            None => folded.push(letter),
        }
    }
    folded
}

/// Checks for Unicode's "Combining Diacritical Marks".
fn is_accent(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}')
}

/// Replaces letters whose stroke or ligature Unicode does not decompose.
fn fold_letter(letter: char) -> Option<&'static str> {
    Some(match letter {
        'æ' => "ae",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ı' => "i",
        'ł' => "l",
        'ø' => "o",
        'œ' => "oe",
        'ß' => "ss",
        'ŧ' => "t",
        'þ' => "th",
        'ς' => "σ",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_one_line_cut_at_a_character_boundary() {
        let text = format!("first\r\nsecond\u{1b}[31m{}", "ż".repeat(400));

        let line = to_printable_line(&text, 300);

        assert!(line.starts_with("first  second[31m"));
        assert_eq!(line.chars().count(), 301);
        assert!(line.ends_with("ż…"));
        assert_eq!(to_printable_line("short", 5), "short");
    }

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

    #[test]
    fn accents_and_letter_case_make_no_difference() {
        for (text, expected) in [
            ("Müller & Söhne", "muller & sohne"),
            ("Cafe\u{301} CRÈME", "cafe creme"),
            ("ŁÓDŹ", "lodz"),
            ("Żubr", "zubr"),
            (
                "Ørsted Ærø Đorđe STRAẞE Straße",
                "orsted aero dorde strasse strasse",
            ),
            ("İstanbul Diyarbakır", "istanbul diyarbakir"),
            ("ΌΜΙΛΟΣ Όμιλος", "ομιλοσ ομιλοσ"),
            ("Ｆｕｌｌ", "full"),
            ("東京商事 شركة", "東京商事 شركة"),
        ] {
            assert_eq!(fold_case_and_accents(text), expected);
        }
    }
}

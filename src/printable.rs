//! Foreign text and errors as one line for a log or a message.

use std::error::Error;

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
}

//! Text of somebody else's, made fit for a log line or a message.

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

//! Text of somebody else's, made fit for a log line or a message.

/// One line of at most `longest` characters, without control characters; `…` shows a cut.
pub fn readable(text: &str, longest: usize) -> String {
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
    fn what_is_told_is_one_line_cut_at_a_character() {
        let text = format!("first\r\nsecond\u{1b}[31m{}", "ż".repeat(400));

        let line = readable(&text, 300);

        assert!(line.starts_with("first  second[31m"));
        assert_eq!(line.chars().count(), 301);
        assert!(line.ends_with("ż…"));
        assert_eq!(readable("short", 5), "short");
    }
}

//! Foreign text for display in XML and HTML.

/// Returns the text on one line, of characters that XML 1.0 allows (§2.2), without those that change
/// the direction of the text around them (Unicode Annex 9, §2). `…` marks the end of a longer text.
pub fn display_text(text: &str) -> String {
    /// Longer than any name that a person reads.
    const MAX_CHARS: usize = 300;

    let shown: String = text.trim().chars().filter_map(displayable_char).collect();
    truncate_with_ellipsis(shown.trim(), MAX_CHARS)
}

/// Returns at most `longest` characters; `…` stands for the rest.
pub(super) fn truncate_with_ellipsis(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(longest.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

fn displayable_char(character: char) -> Option<char> {
    match character {
        '\t' | '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some(' '),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            None
        }
        '\u{feff}' => None,
        '\u{fdd0}'..='\u{fdef}' => Some(char::REPLACEMENT_CHARACTER),
        // The last two code points of every plane are not characters.
        other if other.is_control() || u32::from(other) & 0xfffe == 0xfffe => {
            Some(char::REPLACEMENT_CHARACTER)
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ellipsis_counts_as_a_character() {
        assert_eq!(truncate_with_ellipsis("żółw", 4), "żółw");
        assert_eq!(truncate_with_ellipsis("żółwie", 4), "żół…");
        assert_eq!(truncate_with_ellipsis("a b c", 3), "a…");
        assert_eq!(display_text(&"ż".repeat(10_000)).chars().count(), 300);
    }

    #[test]
    fn undisplayable_characters_are_replaced_or_removed() {
        for (text, expected) in [
            ("Contoso", "Contoso"),
            ("  a\r\nb\t", "a  b"),
            ("a\u{0}b\u{1b}[31m", "a\u{fffd}b\u{fffd}[31m"),
            ("\u{202e}cod.exe\u{202c}", "cod.exe"),
            ("\u{feff}a\u{fffe}\u{ffff}", "a\u{fffd}\u{fffd}"),
            ("شركة 123 ż 🦀", "شركة 123 ż 🦀"),
            ("\u{2068}", ""),
        ] {
            assert_eq!(display_text(text), expected);
        }
    }
}

//! What a terminal can show: how wide, in which characters and colours; and text made fit for it.

use std::io::{self, IsTerminal};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns where nobody says how many there are: in a pipe, for example.
const DEFAULT_COLUMNS: usize = 80;

/// How output may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TerminalStyle {
    /// A person sees it, and not a program.
    pub(super) is_terminal: bool,
    pub(super) columns: usize,
    /// Characters beyond ASCII are shown.
    pub(super) has_unicode: bool,
    pub(super) has_color: bool,
}

/// What text is set off by, where there is colour; it never says what the text does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextStyle {
    Bold,
    Faint,
    Red,
    Green,
    Yellow,
}

// === impl Look ===

impl TerminalStyle {
    /// Of standard output.
    pub(super) fn of_stdout() -> Self {
        let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self::of(io::stdout().is_terminal(), columns)
    }

    /// Of standard error.
    pub(super) fn of_stderr() -> Self {
        let columns = terminal_size::terminal_size_of(io::stderr());
        let columns = columns.map(|(width, _)| usize::from(width.0));
        Self::of(io::stderr().is_terminal(), columns)
    }

    fn of(terminal: bool, columns: Option<usize>) -> Self {
        let no_colour = environment_variable("NO_COLOR").is_some();
        let dumb = environment_variable("TERM").as_deref() == Some("dumb");
        // In this order, as setlocale(3) looks for them.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(environment_variable);
        Self {
            is_terminal: terminal,
            // A width of nothing is what some terminals say that do not know.
            columns: columns
                .filter(|columns| *columns > 0)
                .unwrap_or(DEFAULT_COLUMNS),
            has_unicode: locale.is_some_and(|locale| is_utf8_locale(&locale)),
            has_color: terminal && !no_colour && !dumb,
        }
    }

    /// `text`, set off where there is colour.
    pub(super) fn styled(self, ink: TextStyle, text: &str) -> String {
        if self.has_color && !text.is_empty() {
            format!("\u{1b}[{}m{text}\u{1b}[0m", ink.code())
        } else {
            text.to_owned()
        }
    }

    /// Either, as the terminal can.
    pub(super) fn unicode_or_ascii<'a>(self, unicode: &'a str, ascii: &'a str) -> &'a str {
        if self.has_unicode { unicode } else { ascii }
    }

    /// `text`, cut to `columns`, and the cut shown.
    pub(super) fn truncate(self, text: &str, columns: usize) -> String {
        if text.width() <= columns {
            return text.to_owned();
        }
        let end = self.unicode_or_ascii("…", "~");
        let mut fitting = String::new();
        let mut left = columns.saturating_sub(end.width());
        for character in text.chars() {
            let width = character.width().unwrap_or(0);
            if width > left {
                break;
            }
            left -= width;
            fitting.push(character);
        }
        fitting + end
    }

    /// `text` in lines of this many columns at most, where its words allow it.
    pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(word),
                Some(line) if line.width() + 1 + word.width() <= columns => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }
}

// === impl Ink ===

impl TextStyle {
    fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Faint => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
        }
    }
}

/// Text of somebody else's, so that it can do nothing but be read: whatever moves the cursor, changes
/// colours or the direction of writing, or cannot be seen is shown as `?`.
pub(super) fn sanitize(text: &str) -> String {
    text.chars()
        .map(|character| {
            if is_unsafe_character(character) {
                '?'
            } else {
                character
            }
        })
        .collect()
}

/// The same for text of several lines.
pub(super) fn sanitize_lines(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\t' => character,
            other if is_unsafe_character(other) => '?',
            other => other,
        })
        .collect()
}

fn is_unsafe_character(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Line and paragraph separators; marks, embeddings, overrides and isolates of direction
            // (Unicode TR 36 §2.9); characters without width, with which two names look the same.
            '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}')
}

/// `text` with blanks behind it, up to `columns`.
pub(super) fn align_left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// `text` with blanks before it, up to `columns`.
pub(super) fn align_right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(text.width())))
}

/// Columns that `text` takes.
pub(super) fn display_width(text: &str) -> usize {
    text.width()
}

fn is_utf8_locale(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A variable of the environment that is not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "what a terminal can is no configuration of the service"
)]
pub(super) fn environment_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTF8: TerminalStyle = TerminalStyle {
        is_terminal: true,
        columns: 80,
        has_unicode: true,
        has_color: false,
    };

    #[test]
    fn truncated_text_is_marked_and_fits() {
        for (text, columns, fitting) in [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            // Two columns each, so only two of them and the cut fit.
            ("漢字漢字", 6, "漢字…"),
            ("漢字漢字", 5, "漢字…"),
            ("漢字漢字", 4, "漢…"),
        ] {
            let fitted = UTF8.truncate(text, columns);

            assert_eq!(fitted, fitting, "{text} in {columns}");
            assert!(display_width(&fitted) <= columns);
        }
        let ascii = TerminalStyle {
            has_unicode: false,
            ..UTF8
        };
        assert_eq!(ascii.truncate("longer", 5), "long~");
    }

    #[test]
    fn control_characters_are_replaced() {
        let hostile = "a\u{1b}[2J\u{7}\r\n\u{9b}31m\u{202e}evil\u{200b}ż漢";

        assert_eq!(sanitize(hostile), "a?[2J????31m?evil?ż漢");
        assert_eq!(sanitize_lines("a\u{1b}\nb\t\r"), "a?\nb\t?");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(
            TerminalStyle::wrap("one two  three", 7),
            ["one two", "three"]
        );
        assert_eq!(TerminalStyle::wrap("unbreakable", 4), ["unbreakable"]);
    }

    #[test]
    fn colors_are_used_only_if_enabled() {
        let colour = TerminalStyle {
            has_color: true,
            ..UTF8
        };

        assert_eq!(UTF8.styled(TextStyle::Yellow, "wrong"), "wrong");
        assert_eq!(
            colour.styled(TextStyle::Yellow, "wrong"),
            "\u{1b}[33mwrong\u{1b}[0m"
        );
    }
}

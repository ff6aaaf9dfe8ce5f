//! Text for a terminal: its width, characters and colours, and the sign of life during a wait.

use std::{
    future::Future,
    io::{self, IsTerminal},
    time::Duration,
};

use console::{Alignment, Style, measure_text_width, pad_str, truncate_str};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// Columns if the width is unknown, such as in a pipe.
const DEFAULT_COLUMNS: usize = 80;

/// A wait that is shorter shows no sign of life, which would only flicker.
const QUIET_WAIT: Duration = Duration::from_secs(1);

const SPINNER_INTERVAL: Duration = Duration::from_millis(120);

/// The abilities of the terminal that output goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TerminalStyle {
    /// True if a person reads the output, and not a program.
    pub(super) is_terminal: bool,
    pub(super) columns: usize,
    /// True if it shows characters beyond ASCII.
    pub(super) has_unicode: bool,
    pub(super) has_color: bool,
}

/// Waits for `work`, with a line on standard error if that is a terminal and the wait is long. The
/// line is cleared however the wait ends.
pub(super) async fn while_waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(QUIET_WAIT, &mut work).await {
        return done;
    }
    let spinner = ProgressBar::new_spinner()
        .with_message(what.to_owned())
        .with_elapsed(QUIET_WAIT)
        .with_finish(ProgressFinish::AndClear);
    if let Ok(mut style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        if !TerminalStyle::of_stderr().has_unicode {
            style = style.tick_chars("|/-\\ ");
        }
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(SPINNER_INTERVAL);
    work.await
}

// === impl TerminalStyle ===

impl TerminalStyle {
    pub(super) fn of_stdout() -> Self {
        let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self::of(io::stdout().is_terminal(), columns)
    }

    pub(super) fn of_stderr() -> Self {
        let columns = terminal_size::terminal_size_of(io::stderr());
        let columns = columns.map(|(width, _)| usize::from(width.0));
        Self::of(io::stderr().is_terminal(), columns)
    }

    fn of(is_terminal: bool, columns: Option<usize>) -> Self {
        let no_color = environment_variable("NO_COLOR").is_some();
        let is_dumb = environment_variable("TERM").as_deref() == Some("dumb");
        // In the order of setlocale(3).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(environment_variable);
        Self {
            is_terminal,
            // Some terminals that do not know their width say 0.
            columns: columns
                .filter(|columns| *columns > 0)
                .unwrap_or(DEFAULT_COLUMNS),
            has_unicode: locale.is_some_and(|locale| is_utf8_locale(&locale)),
            has_color: is_terminal && !no_color && !is_dumb,
        }
    }

    /// Styles a text if there is colour. A style never says what the text does not.
    pub(super) fn styled(self, style: &Style, text: &str) -> String {
        if self.has_color && !text.is_empty() {
            let style = style.clone().force_styling(true);
            style.apply_to(text).to_string()
        } else {
            text.to_owned()
        }
    }

    pub(super) fn unicode_or_ascii<'a>(self, unicode: &'a str, ascii: &'a str) -> &'a str {
        if self.has_unicode { unicode } else { ascii }
    }

    /// Cuts a text to this many columns, with a mark at the cut.
    pub(super) fn truncate(self, text: &str, columns: usize) -> String {
        truncate_str(text, columns, self.unicode_or_ascii("…", "~")).into_owned()
    }

    /// Breaks a text into lines of at most this many columns, between words.
    pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(word),
                Some(line) if display_width(line) + 1 + display_width(word) <= columns => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }
}

/// Makes the text of another party safe to print: a character that moves the cursor, changes colours
/// or the direction of writing, or is invisible becomes `?`.
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

/// Does the same for text of several lines.
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

pub(super) fn align_left(text: &str, columns: usize) -> String {
    pad_str(text, columns, Alignment::Left, None).into_owned()
}

pub(super) fn align_right(text: &str, columns: usize) -> String {
    pad_str(text, columns, Alignment::Right, None).into_owned()
}

pub(super) fn display_width(text: &str) -> usize {
    measure_text_width(text)
}

fn is_utf8_locale(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Reads an environment variable that is not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the abilities of a terminal are not configuration of the service"
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

        assert_eq!(UTF8.styled(&Style::new().yellow(), "wrong"), "wrong");
        assert_eq!(
            colour.styled(&Style::new().yellow(), "wrong"),
            "\u{1b}[33mwrong\u{1b}[0m"
        );
    }
}

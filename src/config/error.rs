//! The mistakes of a configuration, each with its place.

use std::{fmt, path::PathBuf};

use super::{
    key::{AnyConfigKey, InputValue, KeyPresence},
    value_type::UnquotedType,
};

/// All mistakes of a configuration, found at once.
///
/// Displays one per line: those of the file from top to bottom, then environment variables by name,
/// flags by name, and what is missing. No line has a value that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

/// A mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `None`: something is missing.
    source: Option<Source>,
    problem: String,
}

/// The place of a value, in the order in which errors are printed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    File {
        path: PathBuf,
        /// `None`: the file as a whole.
        position: Option<TextPosition>,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// A command line flag, by its name.
    Flag(String),
}

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TextPosition {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

// === impl ConfigErrors ===

impl ConfigErrors {
    pub(crate) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors
            .sort_by(|a, b| (a.source.is_none(), &a.source).cmp(&(b.source.is_none(), &b.source)));
        Self { errors }
    }

    /// Returns the errors in the order in which they are printed.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.errors.iter().map(ConfigError::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

// === impl ConfigError ===

impl ConfigError {
    pub(crate) fn at(source: Source, problem: impl Into<String>) -> Self {
        Self {
            source: Some(source),
            problem: problem.into(),
        }
    }

    /// A key that must be set; `because` says why. Without a file, the user may not know that there
    /// can be one.
    pub(super) fn missing_key(key: &dyn AnyConfigKey, because: &str, has_file: bool) -> Self {
        let (file, hint) = match (has_file, key.presence()) {
            (true, _) => ("in the file", ""),
            (false, KeyPresence::Required) => (
                "in a file that `--config FILE` names, such as one of config/examples,",
                "; `usage-proxy demo` runs without a configuration",
            ),
            (false, _) => ("in a file that `--config FILE` names,", ""),
        };
        Self {
            source: None,
            problem: format!(
                "{}: missing{because}; expected {}, {file} or as {}{hint}",
                key.name(),
                key.expected(),
                key.variable(),
            ),
        }
    }

    pub(super) fn bad_value(
        source: Source,
        key: &dyn AnyConfigKey,
        value: &InputValue,
        reason: &str,
    ) -> Self {
        let shown = match value {
            InputValue::Text(text) if may_be_secret(key.name(), text) => {
                " (value not shown)".into()
            }
            InputValue::Text(text) => format!(" = {text:?}"),
            InputValue::Unquoted(UnquotedType::Integer | UnquotedType::Fraction, number) => {
                format!(" = {number}")
            }
            InputValue::Unquoted(..) | InputValue::Other(_) => String::new(),
        };
        let (name, expected) = (key.name(), key.expected());
        Self::at(
            source,
            format!("{name}{shown}: {reason}; expected {expected}"),
        )
    }
}

impl fmt::Display for ConfigError {
    /// Writes one line, whatever the input has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match &self.source {
            Some(source) => format!("{source}: {}", self.problem),
            None => self.problem.clone(),
        };
        f.write_str(&line.replace(char::is_control, "\u{fffd}"))
    }
}

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, position } => {
                write!(f, "{}", path.display())?;
                match position {
                    Some(TextPosition { line, column }) => write!(f, ":{line}:{column}"),
                    None => Ok(()),
                }
            }
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

// === impl TextPosition ===

impl TextPosition {
    pub(crate) fn at_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
        }
    }
}

/// Returns true if a name alone says that its value is secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "secret",
        "token",
        "password",
        "passwd",
        "credential",
        "assertion",
        "api_key",
        "private_key",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// Returns true for a value that may be a secret in place of its file, owner or hash, or a URL with
/// credentials.
pub(super) fn may_be_secret(key: &str, value: &str) -> bool {
    ["_file", "client_id", "_sha256"]
        .iter()
        .any(|end| key.ends_with(end))
        || value.contains(['@', '?', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_in_characters() {
        let text = "é = 1\nüx = 2\n";

        for (offset, line, column) in [
            (0, 1, 1),
            (2, 1, 2),
            (7, 2, 1),
            (9, 2, 2),
            (15, 3, 1),
            (99, 3, 1),
        ] {
            let position = TextPosition::at_offset(text, offset);

            assert_eq!(position, TextPosition { line, column }, "{offset}");
        }
    }

    #[test]
    fn an_error_is_printed_on_one_line() {
        let source = Source::Variable("A\nB".to_owned());

        let shown = ConfigError::at(source, "x\r\ny").to_string();

        assert_eq!(shown.lines().count(), 1, "{shown:?}");
    }
}

use std::{fmt, path::PathBuf};

use super::{
    invalid_value::InvalidValue,
    keys::{self, AnyConfigKey, InputValue},
};

/// Everything that is wrong with a configuration, found at once.
///
/// Displays one fault a line: those of the file from top to bottom, then environment variables by
/// name, flags by name, and what is missing. No line holds a value that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `None`: nowhere, since something is missing.
    source: Option<Source>,
    problem: String,
}

/// Where a value was stated. In the order of faults; a later one beats an earlier one.
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

/// Where in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TextPosition {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

// === impl ConfigErrors ===

impl ConfigErrors {
    pub(crate) fn new(mut faults: Vec<ConfigError>) -> Self {
        faults
            .sort_by(|a, b| (a.source.is_none(), &a.source).cmp(&(b.source.is_none(), &b.source)));
        Self { errors: faults }
    }

    /// Every fault, in the order in which they display.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

// === impl Fault ===

impl ConfigError {
    pub(crate) fn at(place: Source, problem: impl Into<String>) -> Self {
        Self {
            source: Some(place),
            problem: problem.into(),
        }
    }

    /// A key that has to be stated; without a file, somebody may not know that there can be one.
    pub(super) fn missing_key(key: &dyn AnyConfigKey, because: &str, has_file: bool) -> Self {
        let name = key.name();
        let in_file = if has_file {
            "in the file"
        } else {
            "in a file that `--config FILE` names,"
        };
        Self {
            source: None,
            problem: format!(
                "{name}: missing{because}; expected {}, {in_file} or as {}",
                key.expected(),
                keys::variable(name),
            ),
        }
    }

    /// A key's variable with single underscores, which would be ignored.
    pub(super) fn misspelled_variable(name: String, key: &dyn AnyConfigKey) -> Self {
        let problem = format!(
            "is not read; expected {}, with two underscores before each part of {}",
            keys::variable(key.name()),
            key.name(),
        );
        Self::at(Source::Variable(name), problem)
    }

    pub(super) fn bad_value(
        place: Source,
        key: &dyn AnyConfigKey,
        value: &InputValue,
        why: &InvalidValue,
    ) -> Self {
        let shown = match value {
            InputValue::Text(text) if may_contain_secret(key.name(), text) => {
                " (value not shown)".into()
            }
            InputValue::Text(text) => format!(" = {text:?}"),
            InputValue::Number(number) | InputValue::Fraction(number) => format!(" = {number}"),
            InputValue::Boolean(_) | InputValue::List(_) | InputValue::Other(_) => String::new(),
        };
        Self::at(
            place,
            format!("{}{shown}: {why}; expected {}", key.name(), key.expected()),
        )
    }

    /// An unknown key. Its value is never shown: nobody knows what it is.
    pub(super) fn unknown_key(place: Source, name: &str) -> Self {
        let nearest = keys::nearest(name).map_or("", AnyConfigKey::name);
        let problem = if keys::is_table(name) {
            format!("{name}: is a table; expected keys in it, such as {nearest}")
        } else if let Some(file) = secret_file_key(name, nearest) {
            format!(
                "{name}: secrets never stand in configuration; write it to a file of its own, \
                 and name that file in {file} or {}",
                keys::variable(file),
            )
        } else if let Source::Variable(_) = place {
            let variable = keys::variable(nearest);
            format!("{name}: unknown key; the nearest is {nearest}, as {variable}")
        } else {
            format!("{name}: unknown key; the nearest is {nearest}")
        };
        Self::at(place, problem)
    }
}

impl fmt::Display for ConfigError {
    /// On one line, whatever the input holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match &self.source {
            Some(place) => format!("{place}: {}", self.problem),
            None => self.problem.clone(),
        };
        f.write_str(&line.replace(char::is_control, "\u{fffd}"))
    }
}

// === impl Place ===

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

// === impl Position ===

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

/// Whether a name alone says that its value is secret.
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

/// A secret pasted where its file, its owner or its hash should stand, or a URL that carries credentials.
fn may_contain_secret(key: &str, value: &str) -> bool {
    ["_file", "client_id", "_sha256"]
        .iter()
        .any(|end| key.ends_with(end))
        || value.contains(['@', '?', '#'])
}

/// The key that names a file, for an unknown key that would hold the secret itself.
fn secret_file_key(name: &str, nearest: &str) -> Option<&'static str> {
    let part = keys::last_part(name);
    let typing_error = strsim::damerau_levenshtein(part, keys::last_part(nearest)) <= 2;
    if typing_error || !is_secret_name(part) {
        None
    } else if part.contains("refresh") {
        Some(keys::AUTH_REFRESH_TOKEN_FILE.name())
    } else if part.contains("token") {
        Some(keys::AUTH_TOKEN_FILE.name())
    } else {
        Some(keys::AUTH_CLIENT_SECRET_FILE.name())
    }
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
            assert_eq!(
                TextPosition::at_offset(text, offset),
                TextPosition { line, column },
                "{offset}"
            );
        }
    }

    #[test]
    fn an_error_is_printed_on_one_line() {
        let place = Source::Variable("A\nB".to_owned());

        let shown = ConfigError::at(place, "x\r\ny").to_string();

        assert_eq!(shown.lines().count(), 1, "{shown:?}");
    }
}

use std::{fmt, path::PathBuf};

use super::{
    form::Refusal,
    keys::{self, AnyKey, Value},
};

/// Everything that is wrong with a configuration, found at once.
///
/// Displays one fault a line: those of the file from top to bottom, then environment variables by
/// name, flags by name, and what is missing. No line holds a value that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    faults: Vec<Fault>,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `None`: nowhere, since something is missing.
    place: Option<Place>,
    problem: String,
}

/// Where a value was stated. In the order of faults; a later one beats an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    File {
        path: PathBuf,
        /// `None`: the file as a whole.
        position: Option<Position>,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// A command line flag, by its name.
    Flag(String),
}

/// Where in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

// === impl ConfigErrors ===

impl ConfigErrors {
    pub(crate) fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| (a.place.is_none(), &a.place).cmp(&(b.place.is_none(), &b.place)));
        Self { faults }
    }

    /// Every fault, in the order in which they display.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
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

impl Fault {
    pub(crate) fn at(place: Place, problem: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            problem: problem.into(),
        }
    }

    /// A key that has to be stated; without a file, somebody may not know that there can be one.
    pub(super) fn missing(key: &dyn AnyKey, because: &str, has_file: bool) -> Self {
        let name = key.name();
        let in_file = if has_file {
            "in the file"
        } else {
            "in a file that `--config FILE` names,"
        };
        Self {
            place: None,
            problem: format!(
                "{name}: missing{because}; expected {}, {in_file} or as {}",
                key.expected(),
                keys::variable(name),
            ),
        }
    }

    /// A key's variable with single underscores, which would be ignored.
    pub(super) fn misspelled_variable(name: String, key: &dyn AnyKey) -> Self {
        let problem = format!(
            "is not read; expected {}, with two underscores before each part of {}",
            keys::variable(key.name()),
            key.name(),
        );
        Self::at(Place::Variable(name), problem)
    }

    pub(super) fn bad_value(place: Place, key: &dyn AnyKey, value: &Value, why: &Refusal) -> Self {
        let shown = match value {
            Value::Text(text) if may_hold_a_secret(key.name(), text) => " (value not shown)".into(),
            Value::Text(text) => format!(" = {text:?}"),
            Value::Number(number) | Value::Fraction(number) => format!(" = {number}"),
            Value::Boolean(_) | Value::List(_) | Value::Other(_) => String::new(),
        };
        Self::at(
            place,
            format!("{}{shown}: {why}; expected {}", key.name(), key.expected()),
        )
    }

    /// An unknown key. Its value is never shown: nobody knows what it is.
    pub(super) fn unknown(place: Place, name: &str) -> Self {
        let nearest = keys::nearest(name).map_or("", AnyKey::name);
        let problem = if keys::is_table(name) {
            format!("{name}: is a table; expected keys in it, such as {nearest}")
        } else if let Some(file) = file_for_secret(name, nearest) {
            format!(
                "{name}: secrets never stand in configuration; write it to a file of its own, \
                 and name that file in {file} or {}",
                keys::variable(file),
            )
        } else if let Place::Variable(_) = place {
            let variable = keys::variable(nearest);
            format!("{name}: unknown key; the nearest is {nearest}, as {variable}")
        } else {
            format!("{name}: unknown key; the nearest is {nearest}")
        };
        Self::at(place, problem)
    }
}

impl fmt::Display for Fault {
    /// On one line, whatever the input holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match &self.place {
            Some(place) => format!("{place}: {}", self.problem),
            None => self.problem.clone(),
        };
        f.write_str(&line.replace(char::is_control, "\u{fffd}"))
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, position } => {
                write!(f, "{}", path.display())?;
                match position {
                    Some(Position { line, column }) => write!(f, ":{line}:{column}"),
                    None => Ok(()),
                }
            }
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

// === impl Position ===

impl Position {
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
        }
    }
}

/// Whether a name alone says that its value is secret.
pub(super) fn sounds_secret(name: &str) -> bool {
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
fn may_hold_a_secret(key: &str, value: &str) -> bool {
    ["_file", "client_id", "_sha256"]
        .iter()
        .any(|end| key.ends_with(end))
        || value.contains(['@', '?', '#'])
}

/// The key that names a file, for an unknown key that would hold the secret itself.
fn file_for_secret(name: &str, nearest: &str) -> Option<&'static str> {
    let part = keys::last_part(name);
    let typing_error = strsim::damerau_levenshtein(part, keys::last_part(nearest)) <= 2;
    if typing_error || !sounds_secret(part) {
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
                Position::of(text, offset),
                Position { line, column },
                "{offset}"
            );
        }
    }

    #[test]
    fn a_fault_stays_on_its_line() {
        let place = Place::Variable("A\nB".to_owned());

        let shown = Fault::at(place, "x\r\ny").to_string();

        assert_eq!(shown.lines().count(), 1, "{shown:?}");
    }
}

//! The TOML file, flattened into dotted names that know where they stand.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{
    error::{ConfigError, Source, TextPosition, is_secret_name},
    keys::{self, InputValue},
};
use crate::access_key;

/// One `name = value` of the file.
pub(super) struct FileEntry {
    /// Dotted: `cache.fresh_for`.
    pub(super) name: String,
    pub(super) name_source: Source,
    pub(super) value: InputValue,
    pub(super) value_source: Source,
}

struct ConfigDocument<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Every entry of the file, or why there are none.
pub(super) fn read(path: &Path) -> Result<Vec<FileEntry>, Vec<ConfigError>> {
    let whole = |problem: String| {
        let place = Source::File {
            path: path.to_owned(),
            position: None,
        };
        vec![ConfigError::at(place, problem)]
    };
    let bytes = std::fs::read(path).map_err(|error| {
        whole(format!(
            "cannot be read: {error}; check that it is a file that this user may read"
        ))
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|error| whole(format!("is not UTF-8: {}", error.utf8_error())))?;
    ConfigDocument { path, text: &text }.entries()
}

impl ConfigDocument<'_> {
    fn entries(&self) -> Result<Vec<FileEntry>, Vec<ConfigError>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            let mut entries = Vec::new();
            self.flatten("", table.get_ref(), &mut entries);
            Ok(entries)
        } else {
            Err(errors
                .iter()
                .map(|error| self.syntax_error(error))
                .collect())
        }
    }

    fn flatten(&self, prefix: &str, table: &DeTable<'_>, entries: &mut Vec<FileEntry>) {
        for (part, value) in table {
            let name = join_key(prefix, part.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if keys::find(&name).is_none() && !table.is_empty() => {
                    self.flatten(&name, table, entries);
                }
                DeValue::Table(_) if keys::is_table(&name) => {}
                stated => entries.push(FileEntry {
                    name,
                    name_source: self.source_at(part.span().start),
                    value: input_value(stated),
                    value_source: self.source_at(value.span().start),
                }),
            }
        }
    }

    fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        let place = self.source_at(error.span().map_or(0, |span| span.start));
        let line = match &place {
            Source::File {
                position: Some(position),
                ..
            } => self.text.lines().nth(position.line - 1),
            _ => None,
        };
        let line = match line.map(str::trim) {
            None | Some("") => String::new(),
            Some(line) if may_contain_secret(line) => " (line not shown)".to_owned(),
            Some(line) => format!(", in `{line}`"),
        };
        ConfigError::at(place, format!("not TOML: {}{line}", error.message()))
    }

    fn source_at(&self, offset: usize) -> Source {
        Source::File {
            path: self.path.to_owned(),
            position: Some(TextPosition::at_offset(self.text, offset)),
        }
    }
}

/// A part that would read as several is quoted, as TOML wants it too.
fn join_key(prefix: &str, part: &str) -> String {
    let bare = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let part = if !part.is_empty() && part.chars().all(bare) {
        part.to_owned()
    } else {
        format!("{part:?}")
    };
    match prefix {
        "" => part,
        _ => format!("{prefix}.{part}"),
    }
}

fn input_value(value: &DeValue<'_>) -> InputValue {
    match value {
        DeValue::String(text) => InputValue::Text(text.to_string()),
        DeValue::Integer(number) => InputValue::Number(
            i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.to_string(), |number| number.to_string()),
        ),
        DeValue::Float(number) => InputValue::Fraction(number.to_string()),
        DeValue::Boolean(truth) => InputValue::Boolean(*truth),
        DeValue::Datetime(_) => InputValue::Other("a date or time"),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map_or(
                InputValue::Other("an array of other things than text"),
                InputValue::List,
            ),
        DeValue::Table(_) => InputValue::Other("a table"),
    }
}

/// A broken line has no key to go by, only words. One that begins like a known key is shown, unless
/// that key names a file or a hash, where a secret may have been pasted instead, or a URL has a
/// user.
fn may_contain_secret(line: &str) -> bool {
    let name = keys::last_part(line.split('=').next().unwrap_or(line).trim());
    let harmless = !name.ends_with("_file")
        && keys::ALL
            .iter()
            .any(|key| keys::last_part(key.name()) == name);
    line.contains('@')
        || line.contains(access_key::KEY_PREFIX)
        || name.ends_with("_sha256")
        || is_secret_name(line) && !harmless
}

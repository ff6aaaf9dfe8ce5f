//! The TOML file, as a list of dotted names with their places.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{
    error::{ConfigError, Source, TextPosition, is_secret_name},
    key::{InputValue, last_part},
    keys,
    value_type::UnquotedType,
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

/// Reads the entries of a file.
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
            Some(line) if may_be_secret(line) => " (line not shown)".to_owned(),
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

/// Quotes a part that would read as several, as TOML does.
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
        DeValue::Integer(number) => InputValue::Unquoted(
            UnquotedType::Integer,
            i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.to_string(), |number| number.to_string()),
        ),
        DeValue::Float(number) => InputValue::Unquoted(UnquotedType::Fraction, number.to_string()),
        DeValue::Boolean(value) => InputValue::Unquoted(UnquotedType::Boolean, value.to_string()),
        DeValue::Datetime(_) => InputValue::Other("a date or time"),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| item.get_ref().as_str());
            items.collect::<Option<Vec<_>>>().map_or(
                InputValue::Other("an array with items that are not text"),
                |items| list_value(&items),
            )
        }
        DeValue::Table(_) => InputValue::Other("a table"),
    }
}

/// Joins the items with commas, if they can be split again.
fn list_value(items: &[&str]) -> InputValue {
    if items.iter().any(|item| item.contains(',')) {
        InputValue::Other("an array with a comma in an item")
    } else if items.iter().any(|item| item.trim().is_empty()) {
        InputValue::Other("an array with an empty item")
    } else {
        InputValue::Unquoted(UnquotedType::List, items.join(","))
    }
}

/// Returns true for a broken line that may have a secret.
///
/// There is no key, only words. A line that begins like a known key is shown, unless that key names
/// a file or a hash, in whose place may be a secret, or a URL has a user.
fn may_be_secret(line: &str) -> bool {
    let name = last_part(line.split('=').next().unwrap_or(line).trim());
    let is_harmless =
        !name.ends_with("_file") && keys::all().any(|key| last_part(key.name()) == name);
    line.contains('@')
        || line.contains(access_key::KEY_PREFIX)
        || name.ends_with("_sha256")
        || is_secret_name(line) && !is_harmless
}

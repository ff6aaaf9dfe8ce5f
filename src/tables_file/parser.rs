//! Parses a file of tables, and collects every error.
//!
//! The `toml` crate's own tree of spanned values is read directly: serde would stop at the first
//! error, and an operator wants all of them at once, each with its position.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    config::{ConfigError, ConfigErrors, Source, TextPosition},
    text::to_printable_line,
};

/// The largest file that is read: more than half a million customers need.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// A file of tables, and the files that it names, as they were at one time, valid or not.
#[derive(Debug)]
pub(crate) struct ParsedTables<T> {
    /// Every file that was read.
    pub(crate) files: Vec<PathBuf>,
    /// Digest of the file of tables alone, as `sha256sum` prints it.
    pub(super) sha256: [u8; 32],
    /// Digest of all files.
    pub(super) digest: [u8; 32],
    pub(crate) content: Result<T, ConfigErrors>,
}

/// The tables of one name, such as `[[caller]]`.
pub(crate) struct TableKind {
    pub(crate) name: &'static str,
    /// The names of the fields.
    pub(crate) fields: &'static [&'static str],
    /// The fields that tell a table from others in error messages; of those that it has, the first.
    pub(crate) labels: &'static [&'static str],
}

/// A field and the values that it takes.
pub(crate) struct TableField<T: 'static> {
    pub(crate) name: &'static str,
    /// Completes "expected …".
    pub(crate) expected: &'static str,
    pub(crate) value_type: FieldType,
    /// The error completes "the value …".
    pub(crate) parse: fn(&str) -> Result<T, String>,
    /// The text by which values are compared, for fields whose values may be in one table only.
    pub(crate) unique_by: Option<fn(&T) -> String>,
}

/// The type of a value in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldType {
    Text,
    /// Text that no message shows, since it could be a secret.
    HiddenText,
    Number,
    Boolean,
}

/// A file that is being parsed.
#[derive(Clone, Copy)]
pub(crate) struct TablesDocument<'a> {
    pub(crate) path: &'a Path,
    text: &'a str,
}

/// Reads the file of tables and the files that it names.
#[derive(Default)]
pub(crate) struct TablesParser {
    files: Vec<PathBuf>,
    /// One digest for each file; a file that cannot be read counts as empty.
    digests: Vec<[u8; 32]>,
    /// The position of each unique value, by field and value.
    owners: HashMap<(&'static str, String), Source>,
    errors: Vec<ConfigError>,
}

/// Reads one table.
pub(crate) struct TableReader<'a> {
    pub(crate) parser: &'a mut TablesParser,
    pub(crate) document: TablesDocument<'a>,
    fields: &'a DeTable<'a>,
    /// The table in error messages: `caller "grafana"`.
    label: String,
    source: Source,
}

/// Reads a file, parses its text by `parse_text`, and collects the errors of both.
pub(crate) fn parse_tables<T>(
    path: &Path,
    parse_text: impl FnOnce(&mut TablesParser, TablesDocument<'_>) -> T,
) -> ParsedTables<T> {
    let mut parser = TablesParser::default();
    let text = parser.read_file(path);
    let content = text.map(|text| parse_text(&mut parser, TablesDocument { path, text: &text }));
    ParsedTables {
        sha256: parser.digests.first().copied().unwrap_or_default(),
        digest: Sha256::digest(parser.digests.concat()).into(),
        files: parser.files,
        content: match content {
            Some(content) if parser.errors.is_empty() => Ok(content),
            _ => Err(ConfigErrors::new(parser.errors)),
        },
    }
}

/// Parses the name of something elsewhere: 1 to 256 bytes on one line.
pub(crate) fn parse_identifier(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty".into()),
        _ if text.len() > 256 => Err("is longer than 256 bytes".into()),
        _ if text.contains(char::is_control) => Err("contains control characters".into()),
        _ if text.trim() != text => Err("begins or ends with a space".into()),
        _ => Ok(text.to_owned()),
    }
}

// === impl TablesParser ===

impl TablesParser {
    /// Reads a file, which is watched from now on.
    pub(crate) fn read_file(&mut self, path: &Path) -> Option<String> {
        let text = read_text(path);
        self.files.push(path.to_owned());
        let content = text.as_ref().map_or(&[][..], |text| text.as_bytes());
        self.digests.push(Sha256::digest(content).into());
        text.map_err(|problem| self.push_error(whole_file(path), problem))
            .ok()
    }

    pub(crate) fn push_error(&mut self, source: Source, problem: impl Into<String>) {
        self.errors.push(ConfigError::at(source, problem));
    }

    /// Returns the number of errors so far.
    pub(crate) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Parses a document that has tables of these kinds, at least one of them, and nothing else.
    pub(crate) fn parse_root<'a>(
        &mut self,
        document: TablesDocument<'a>,
        kinds: &[&TableKind],
    ) -> Option<DeTable<'a>> {
        let (root, errors) = DeTable::parse_recoverable(document.text);
        for error in &errors {
            // The line itself is not printed: it could hold a secret.
            let offset = error.span().map_or(0, |span| span.start);
            let problem = format!("not TOML: {}", error.message());
            self.push_error(document.source_at(offset), problem);
        }
        if !errors.is_empty() {
            return None;
        }
        let root = root.into_inner();
        let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        let headers: Vec<_> = names.iter().map(|name| format!("[[{name}]]")).collect();
        let headers = headers.join(" or ");
        for (name, _) in root
            .iter()
            .filter(|(name, _)| !names.contains(&&**name.get_ref()))
        {
            let problem = format!("{}: unknown; expected {headers}", name.get_ref());
            self.push_error(document.source_at(name.span().start), problem);
        }
        if !names.iter().any(|name| root.contains_key(*name)) {
            let names = names.join(" or ");
            let problem = format!("names no {names}; expected at least one {headers}");
            self.push_error(whole_file(document.path), problem);
        }
        Some(root)
    }

    /// Reads each table of a kind by `read_table`, which returns `None` after an error.
    pub(crate) fn parse_each<T>(
        &mut self,
        document: TablesDocument<'_>,
        root: &DeTable<'_>,
        kind: &TableKind,
        mut read_table: impl FnMut(TableReader<'_>) -> Option<T>,
    ) -> Vec<T> {
        let name = kind.name;
        let Some(tables) = root.get(name) else {
            return Vec::new();
        };
        match tables.get_ref() {
            DeValue::Array(tables) if !tables.is_empty() => (1..)
                .zip(tables.iter())
                .filter_map(|(number, table)| {
                    let mut table = self.table(document, table, kind, number)?;
                    table.check_names(kind);
                    read_table(table)
                })
                .collect(),
            _ => {
                let problem =
                    format!("{name}: is not a list of tables; expected [[{name}]] for each");
                self.push_error(document.source_at(tables.span().start), problem);
                Vec::new()
            }
        }
    }

    /// Returns the `number`th table of a kind, from 1.
    fn table<'a>(
        &'a mut self,
        document: TablesDocument<'a>,
        table: &'a Spanned<DeValue<'a>>,
        kind: &TableKind,
        number: usize,
    ) -> Option<TableReader<'a>> {
        let name = kind.name;
        let source = document.source_at(table.span().start);
        let DeValue::Table(fields) = table.get_ref() else {
            self.push_error(
                source,
                format!("{name}: is not a table; expected [[{name}]]"),
            );
            return None;
        };
        let mut labels = kind.labels.iter().filter_map(|label| {
            let label = fields.get(*label)?.get_ref().as_str()?;
            Some(format!("{name} {:?}", to_printable_line(label, 64)))
        });
        Some(TableReader {
            label: labels.next().unwrap_or_else(|| format!("{name} {number}")),
            parser: self,
            document,
            fields,
            source,
        })
    }
}

// === impl TableReader ===

impl TableReader<'_> {
    /// Rejects fields that tables of this kind do not have.
    fn check_names(&mut self, kind: &TableKind) {
        for (field, _) in self.fields {
            let name = field.get_ref();
            if kind.fields.contains(&name.as_ref()) {
                continue;
            }
            let nearest = kind.fields.iter();
            let nearest = nearest
                .min_by_key(|known| strsim::damerau_levenshtein(known, name))
                .copied()
                .unwrap_or_default();
            let name = to_printable_line(name, 64);
            let problem = format!("{name}: unknown field; the nearest is {nearest}");
            self.push_error(self.document.source_at(field.span().start), &problem);
        }
    }

    /// Returns true if the table has a field of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Returns true if the table has exactly one of these fields, and reports an error otherwise.
    pub(crate) fn require_one_of(&mut self, names: &[&str]) -> bool {
        let problem = match names.iter().filter(|name| self.has(name)).count() {
            1 => return true,
            0 => format!("{}: missing", names.join(" or ")),
            _ => format!("has {}; expected one of them", names.join(" and ")),
        };
        self.push_table_error(&problem);
        false
    }

    /// Reports an error of the table as a whole.
    pub(crate) fn push_table_error(&mut self, problem: &str) {
        self.push_error(self.source.clone(), problem);
    }

    /// Reports an error of a field's value.
    pub(crate) fn push_value_error(&mut self, name: &str, problem: &str) {
        let value = self.fields.get(name);
        let source = value.map(|value| self.document.source_at(value.span().start));
        self.push_error(source.unwrap_or_else(|| self.source.clone()), problem);
    }

    pub(crate) fn read_one<T>(&mut self, field: &TableField<T>) -> Option<T> {
        let value = self.fields.get(field.name)?;
        self.parse_value(field, value)
    }

    /// Reads a list; a single value needs no brackets.
    pub(crate) fn read_list<T>(&mut self, field: &TableField<T>) -> Vec<T> {
        let Some(value) = self.fields.get(field.name) else {
            return Vec::new();
        };
        let DeValue::Array(values) = value.get_ref() else {
            return self.parse_value(field, value).into_iter().collect();
        };
        if values.is_empty() {
            let problem = format!("{}: is empty; expected {}", field.name, field.expected);
            self.push_error(self.document.source_at(value.span().start), &problem);
        }
        let values = values.iter();
        values
            .filter_map(|value| self.parse_value(field, value))
            .collect()
    }

    fn parse_value<T>(&mut self, field: &TableField<T>, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let source = self.document.source_at(value.span().start);
        let name = field.name;
        let problem = match field.value_type.text_of(value.get_ref()) {
            Ok(text) => match (field.parse)(&text) {
                Ok(value) => {
                    if let Some(text_of) = field.unique_by {
                        self.check_unique(name, text_of(&value), source);
                    }
                    return Some(value);
                }
                Err(why) => format!("{name}{}: {why}", field.value_type.shown(&text)),
            },
            Err(why) => format!("{name}: {why}"),
        };
        self.push_error(source, &format!("{problem}; expected {}", field.expected));
        None
    }

    fn check_unique(&mut self, field: &'static str, value: String, source: Source) {
        let owners = &mut self.parser.owners;
        if let Some(first) = owners.insert((field, value), source.clone()) {
            let problem = format!("{field}: is already used at {first}; expected another");
            self.push_error(source, &problem);
        }
    }

    fn push_error(&mut self, source: Source, problem: &str) {
        let problem = format!("{}: {problem}", self.label);
        self.parser.push_error(source, problem);
    }
}

// === impl FieldType ===

impl FieldType {
    /// Returns the text of a value of this type; the error completes "the value …".
    fn text_of<'a>(self, value: &'a DeValue<'_>) -> Result<Cow<'a, str>, &'static str> {
        match (self, value) {
            (Self::Text | Self::HiddenText, DeValue::String(text)) => Ok(Cow::Borrowed(text)),
            (Self::Text | Self::HiddenText, _) => Err("is not text in quotes"),
            // With the prefix of another base than ten.
            (Self::Number, DeValue::Integer(number)) => Ok(Cow::Owned(number.to_string())),
            (Self::Number, DeValue::Float(number)) => Ok(Cow::Borrowed(number.as_str())),
            (Self::Number, _) => Err("is not a number without quotes"),
            (Self::Boolean, DeValue::Boolean(true)) => Ok(Cow::Borrowed("true")),
            (Self::Boolean, DeValue::Boolean(false)) => Ok(Cow::Borrowed("false")),
            (Self::Boolean, _) => Err("is not true or false without quotes"),
        }
    }

    /// Returns a value as messages show it after the field's name.
    fn shown(self, text: &str) -> String {
        match self {
            Self::Text => format!(" = {:?}", to_printable_line(text, 100)),
            Self::HiddenText => " (value not shown)".to_owned(),
            Self::Number | Self::Boolean => format!(" = {}", to_printable_line(text, 100)),
        }
    }
}

// === impl TablesDocument ===

impl TablesDocument<'_> {
    fn source_at(&self, offset: usize) -> Source {
        Source::File {
            path: self.path.to_owned(),
            position: Some(TextPosition::at_offset(self.text, offset)),
        }
    }
}

/// The place of an error that concerns a file as a whole.
pub(crate) fn whole_file(path: &Path) -> Source {
    Source::File {
        path: path.to_owned(),
        position: None,
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("is larger than 32 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {}", error.utf8_error()))
}

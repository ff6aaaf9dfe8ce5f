//! Parses the callers file and the customer files that it names, and collects every error.
//!
//! The `toml` crate's own tree of spanned values is read directly: serde would stop at the first
//! error, and an operator wants all of them at once, each with its position.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::caller_fields::{
    CLIENT_CERTIFICATE, CUSTOMERS, CUSTOMERS_FILE, CallerField, FIELD_NAMES, JWT_SUBJECT,
    KEY_SHA256, NAME, RATE, SCOPES,
};
use crate::{
    access_key::KeyHash,
    config::{ConfigError, ConfigErrors, Source, TextPosition},
    domain::{Caller, CustomerAccess, CustomerId},
    text::to_printable_line,
    token_bucket::RateQuota,
};

/// The largest file that is read: more than half a million customers need.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The most errors that are reported of a customers file; it may be the wrong file altogether.
const MAX_ERRORS: usize = 20;

/// The callers file and its customer files as they were at one time, valid or not.
#[derive(Debug)]
pub(super) struct ParsedCallersFile {
    /// Every file that was read.
    pub(super) files: Vec<PathBuf>,
    /// Digest of the callers file alone, as `sha256sum` prints it.
    pub(super) sha256: [u8; 32],
    /// Digest of all files.
    pub(super) digest: [u8; 32],
    pub(super) callers: Result<Vec<CallerEntry>, ConfigErrors>,
}

/// A `[[caller]]` of the file.
#[derive(Debug)]
pub(super) struct CallerEntry {
    pub(super) caller: Caller,
    pub(super) key_hashes: Vec<KeyHash>,
    pub(super) jwt_subject: Option<String>,
    pub(super) client_certificate: Option<String>,
    pub(super) rate: Option<RateQuota>,
}

/// Reads and parses all files again.
pub(super) fn parse(path: &Path) -> ParsedCallersFile {
    let mut parser = CallersParser::default();
    let callers = match parser.read_file(path) {
        Some(text) => parser.callers(CallersDocument { path, text: &text }),
        None => Vec::new(),
    };
    ParsedCallersFile {
        sha256: parser.digests.first().copied().unwrap_or_default(),
        digest: Sha256::digest(parser.digests.concat()).into(),
        files: parser.files,
        callers: if parser.errors.is_empty() {
            Ok(callers)
        } else {
            Err(ConfigErrors::new(parser.errors))
        },
    }
}

#[derive(Default)]
struct CallersParser {
    files: Vec<PathBuf>,
    /// One digest for each file; a file that cannot be read counts as empty.
    digests: Vec<[u8; 32]>,
    /// The position of each name and credential, by field and value.
    owners: HashMap<(&'static str, String), Source>,
    errors: Vec<ConfigError>,
}

#[derive(Clone, Copy)]
struct CallersDocument<'a> {
    path: &'a Path,
    text: &'a str,
}

/// A `[[caller]]` that is being parsed.
struct CallerTable<'a> {
    parser: &'a mut CallersParser,
    document: CallersDocument<'a>,
    fields: &'a DeTable<'a>,
    /// The caller in error messages: `caller "grafana"`.
    label: String,
    source: Source,
}

// === impl CallersParser ===

impl CallersParser {
    fn read_file(&mut self, path: &Path) -> Option<String> {
        let text = read_text(path);
        self.files.push(path.to_owned());
        let content = text.as_ref().map_or(&[][..], |text| text.as_bytes());
        self.digests.push(Sha256::digest(content).into());
        text.map_err(|problem| self.push_error(whole_file(path), problem))
            .ok()
    }

    fn push_error(&mut self, source: Source, problem: impl Into<String>) {
        self.errors.push(ConfigError::at(source, problem));
    }

    fn callers(&mut self, document: CallersDocument<'_>) -> Vec<CallerEntry> {
        let (root, errors) = DeTable::parse_recoverable(document.text);
        for error in &errors {
            // The line itself is not printed: it could hold a secret.
            let offset = error.span().map_or(0, |span| span.start);
            let problem = format!("not TOML: {}", error.message());
            self.push_error(document.source_at(offset), problem);
        }
        if !errors.is_empty() {
            return Vec::new();
        }
        let root = root.get_ref();
        for (name, _) in root.iter().filter(|(name, _)| name.get_ref() != "caller") {
            let problem = format!("{}: unknown; expected [[caller]]", name.get_ref());
            self.push_error(document.source_at(name.span().start), problem);
        }
        let Some(callers) = root.get("caller") else {
            let problem = "names no caller; expected at least one [[caller]]";
            self.push_error(whole_file(document.path), problem);
            return Vec::new();
        };
        match callers.get_ref() {
            DeValue::Array(tables) if !tables.is_empty() => (1..)
                .zip(tables.iter())
                .filter_map(|(number, table)| self.caller(document, table, number))
                .collect(),
            _ => {
                let problem = "caller: is not a list of tables; expected [[caller]] for each";
                self.push_error(document.source_at(callers.span().start), problem);
                Vec::new()
            }
        }
    }

    /// Parses the table that is the `number`th caller, from 1.
    fn caller(
        &mut self,
        document: CallersDocument<'_>,
        table: &Spanned<DeValue<'_>>,
        number: usize,
    ) -> Option<CallerEntry> {
        let source = document.source_at(table.span().start);
        let DeValue::Table(fields) = table.get_ref() else {
            self.push_error(source, "caller: is not a table; expected [[caller]]");
            return None;
        };
        let label = match fields.get(NAME.name).map(Spanned::get_ref) {
            Some(DeValue::String(name)) => format!("caller {:?}", to_printable_line(name, 64)),
            _ => format!("caller {number}"),
        };
        let table = CallerTable {
            parser: self,
            document,
            fields,
            label,
            source,
        };
        table.entry()
    }

    /// Parses a file with one GUID per line; `#` begins a comment.
    fn customers_file(&mut self, path: &Path) -> Option<CustomerAccess> {
        let text = self.read_file(path)?;
        let mut customers = HashSet::new();
        let errors_before = self.errors.len();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.trim_start_matches('\u{feff}');
            let id = content.split('#').next().unwrap_or_default().trim();
            if id.is_empty() {
                continue;
            }
            match CustomerId::parse(id) {
                Ok(customer) => {
                    customers.insert(customer);
                }
                Err(invalid) => {
                    let source = Source::File {
                        path: path.to_owned(),
                        position: Some(TextPosition { line, column: 1 }),
                    };
                    let id = to_printable_line(id, 100);
                    self.push_error(source, format!("{id:?}: is not a GUID; {invalid}"));
                }
            }
            if self.errors.len() - errors_before == MAX_ERRORS {
                break;
            }
        }
        if customers.is_empty() && self.errors.len() == errors_before {
            let problem = "names no customer; expected one GUID per line";
            self.push_error(whole_file(path), problem);
        }
        Some(CustomerAccess::Only(Arc::new(customers)))
    }
}

// === impl CallerTable ===

impl CallerTable<'_> {
    /// Returns `None` if a required field is missing; the error is reported.
    fn entry(mut self) -> Option<CallerEntry> {
        self.check_fields();
        let name = self.read_one(&NAME);
        let key_hashes = self.read_list(&KEY_SHA256);
        let jwt_subject = self.read_one(&JWT_SUBJECT);
        let client_certificate = self.read_one(&CLIENT_CERTIFICATE);
        let listed = self.customers();
        let in_file = self.customers_file();
        let scopes = self.read_list(&SCOPES).into_iter().collect();
        let rate = self.read_one(&RATE);
        Some(CallerEntry {
            caller: Caller::new(name?, listed.or(in_file)?, scopes),
            key_hashes,
            jwt_subject,
            client_certificate,
            rate,
        })
    }

    fn check_fields(&mut self) {
        for (field, _) in self.fields {
            let name = field.get_ref();
            if FIELD_NAMES.contains(&name.as_ref()) {
                continue;
            }
            let nearest = FIELD_NAMES
                .into_iter()
                .min_by_key(|known| strsim::damerau_levenshtein(known, name))
                .unwrap_or_default();
            let name = to_printable_line(name, 64);
            let problem = format!("{name}: unknown field; the nearest is {nearest}");
            self.push_error(self.document.source_at(field.span().start), &problem);
        }
        let fields = self.fields;
        let is_present = |name: &&&str| fields.contains_key(**name);
        let credentials = [KEY_SHA256.name, JWT_SUBJECT.name, CLIENT_CERTIFICATE.name];
        if !credentials.iter().any(|name| is_present(&name)) {
            let names = credentials.join(", ");
            let problem = format!("has no credential; expected one or more of {names}");
            self.push_error(self.source.clone(), &problem);
        }
        for alternatives in [
            &[NAME.name][..],
            &[CUSTOMERS.name, CUSTOMERS_FILE.name],
            &[SCOPES.name],
        ] {
            let problem = match alternatives.iter().filter(is_present).count() {
                1 => continue,
                0 => format!("{}: missing", alternatives.join(" or ")),
                _ => format!("has {}; expected one of them", alternatives.join(" and ")),
            };
            self.push_error(self.source.clone(), &problem);
        }
    }

    fn customers(&mut self) -> Option<CustomerAccess> {
        let value = self.fields.get(CUSTOMERS.name)?;
        let customers = self.read_list(&CUSTOMERS);
        match customers.iter().copied().collect::<Option<HashSet<_>>>() {
            Some(ids) => Some(CustomerAccess::Only(Arc::new(ids))),
            None => {
                if customers.len() > 1 {
                    let problem = "customers: \"*\" is every customer; expected nothing beside it";
                    self.push_error(self.document.source_at(value.span().start), problem);
                }
                Some(CustomerAccess::All)
            }
        }
    }

    fn customers_file(&mut self) -> Option<CustomerAccess> {
        let file = self.read_one(&CUSTOMERS_FILE)?;
        let folder = self.document.path.parent().unwrap_or(Path::new(""));
        self.parser.customers_file(&folder.join(file))
    }

    fn read_one<T>(&mut self, field: &CallerField<T>) -> Option<T> {
        let value = self.fields.get(field.name)?;
        self.parse_value(field, value)
    }

    /// Reads a list of texts; a single one needs no brackets.
    fn read_list<T>(&mut self, field: &CallerField<T>) -> Vec<T> {
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

    fn parse_value<T>(
        &mut self,
        field: &CallerField<T>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<T> {
        let source = self.document.source_at(value.span().start);
        let name = field.name;
        let problem = match value.get_ref() {
            DeValue::String(text) => match (field.parse)(text) {
                Ok(value) => {
                    if let Some(text_of) = field.unique_by {
                        self.check_unique(name, text_of(&value), source);
                    }
                    return Some(value);
                }
                Err(why) if name == KEY_SHA256.name => format!("{name} (value not shown): {why}"),
                Err(why) => format!("{name} = {:?}: {why}", to_printable_line(text, 100)),
            },
            _ => format!("{name}: is not text in quotes"),
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

// === impl CallersDocument ===

impl CallersDocument<'_> {
    fn source_at(&self, offset: usize) -> Source {
        Source::File {
            path: self.path.to_owned(),
            position: Some(TextPosition::at_offset(self.text, offset)),
        }
    }
}

fn whole_file(path: &Path) -> Source {
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

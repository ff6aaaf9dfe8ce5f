//! Parses the callers file and the customer files that it names, and collects every error.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::caller_fields::{
    CALLER, CLIENT_CERTIFICATE, CUSTOMERS, CUSTOMERS_FILE, JWT_SUBJECT, KEY_SHA256, NAME, RATE,
    SCOPES,
};
use crate::{
    access_key::KeyHash,
    config::{Source, TextPosition},
    domain::{Caller, CustomerAccess, CustomerId},
    tables_file::{ParsedTables, TableReader, TablesParser, parse_tables, whole_file},
    text::to_printable_line,
    token_bucket::RateQuota,
};

/// The most errors that are reported of a customers file; it may be the wrong file altogether.
const MAX_ERRORS: usize = 20;

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
pub(super) fn parse(path: &Path) -> ParsedTables<Vec<CallerEntry>> {
    parse_tables(path, |parser, document| {
        let root = parser.parse_root(document, &[&CALLER]);
        root.map(|root| parser.parse_each(document, &root, &CALLER, read_caller))
            .unwrap_or_default()
    })
}

/// Returns `None` if a required field is missing; the error is reported.
fn read_caller(mut table: TableReader<'_>) -> Option<CallerEntry> {
    let credentials = [KEY_SHA256.name, JWT_SUBJECT.name, CLIENT_CERTIFICATE.name];
    if !credentials.iter().any(|name| table.has(name)) {
        let names = credentials.join(", ");
        table.push_table_error(&format!(
            "has no credential; expected one or more of {names}"
        ));
    }
    table.require_one_of(&[NAME.name]);
    table.require_one_of(&[CUSTOMERS.name, CUSTOMERS_FILE.name]);
    table.require_one_of(&[SCOPES.name]);

    let name = table.read_one(&NAME);
    let key_hashes = table.read_list(&KEY_SHA256);
    let jwt_subject = table.read_one(&JWT_SUBJECT);
    let client_certificate = table.read_one(&CLIENT_CERTIFICATE);
    let listed = read_customers(&mut table);
    let customers_file = table.read_one(&CUSTOMERS_FILE);
    let scopes = table.read_list(&SCOPES).into_iter().collect();
    let rate = table.read_one(&RATE);
    let in_file = customers_file.and_then(|file| read_customers_file(table, file));
    Some(CallerEntry {
        caller: Caller::new(name?, listed.or(in_file)?, scopes),
        key_hashes,
        jwt_subject,
        client_certificate,
        rate,
    })
}

fn read_customers(table: &mut TableReader<'_>) -> Option<CustomerAccess> {
    if !table.has(CUSTOMERS.name) {
        return None;
    }
    let customers = table.read_list(&CUSTOMERS);
    match customers.iter().copied().collect::<Option<HashSet<_>>>() {
        Some(ids) => Some(CustomerAccess::Only(Arc::new(ids))),
        None => {
            if customers.len() > 1 {
                let problem = "customers: \"*\" is every customer; expected nothing beside it";
                table.push_value_error(CUSTOMERS.name, problem);
            }
            Some(CustomerAccess::All)
        }
    }
}

fn read_customers_file(table: TableReader<'_>, file: PathBuf) -> Option<CustomerAccess> {
    let folder = table.document.path.parent().unwrap_or(Path::new(""));
    parse_customers_file(table.parser, &folder.join(file))
}

/// Parses a file with one GUID per line; `#` begins a comment.
fn parse_customers_file(parser: &mut TablesParser, path: &Path) -> Option<CustomerAccess> {
    let text = parser.read_file(path)?;
    let mut customers = HashSet::new();
    let errors_before = parser.error_count();
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
                parser.push_error(source, format!("{id:?}: is not a GUID; {invalid}"));
            }
        }
        if parser.error_count() - errors_before == MAX_ERRORS {
            break;
        }
    }
    if customers.is_empty() && parser.error_count() == errors_before {
        let problem = "names no customer; expected one GUID per line";
        parser.push_error(whole_file(path), problem);
    }
    Some(CustomerAccess::Only(Arc::new(customers)))
}

//! A file of customers: a GUID a line; `#` begins a comment.

use std::collections::HashSet;

use super::document::{CallersDocument, place};
use crate::{
    config::{ConfigError, TextPosition},
    domain::CustomerId,
    printable::to_printable_line,
};

/// Most faults that are told of one file: it may be another file altogether.
const MAX_ERRORS: usize = 20;

/// Its customers, at least one.
pub(super) fn parse(
    document: &CallersDocument<'_>,
) -> Result<HashSet<CustomerId>, Vec<ConfigError>> {
    let mut customers = HashSet::new();
    let mut faults = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}');
        let stated = line.split('#').next().unwrap_or_default().trim();
        if stated.is_empty() {
            continue;
        }
        match CustomerId::parse(stated) {
            Ok(customer) => {
                customers.insert(customer);
            }
            Err(invalid) => {
                let position = TextPosition {
                    line: index + 1,
                    column: 1,
                };
                let problem = format!(
                    "{:?}: is no GUID; {invalid}",
                    to_printable_line(stated, 100)
                );
                faults.push(ConfigError::at(
                    place(document.path, Some(position)),
                    problem,
                ));
            }
        }
        if faults.len() == MAX_ERRORS {
            break;
        }
    }
    if customers.is_empty() && faults.is_empty() {
        let problem = "names no customer; expected a GUID a line";
        faults.push(ConfigError::at(place(document.path, None), problem));
    }
    if faults.is_empty() {
        Ok(customers)
    } else {
        Err(faults)
    }
}

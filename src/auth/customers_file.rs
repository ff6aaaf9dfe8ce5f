//! A file of customers: a GUID a line; `#` begins a comment.

use std::collections::HashSet;

use super::document::{Document, place};
use crate::{
    config::{Fault, Position},
    domain::CustomerId,
    readable::readable,
};

/// Most faults that are told of one file: it may be another file altogether.
const MOST_FAULTS: usize = 20;

/// Its customers, at least one.
pub(super) fn parse(document: &Document<'_>) -> Result<HashSet<CustomerId>, Vec<Fault>> {
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
                let position = Position {
                    line: index + 1,
                    column: 1,
                };
                let problem = format!("{:?}: is no GUID; {invalid}", readable(stated, 100));
                faults.push(Fault::at(place(document.path, Some(position)), problem));
            }
        }
        if faults.len() == MOST_FAULTS {
            break;
        }
    }
    if customers.is_empty() && faults.is_empty() {
        let problem = "names no customer; expected a GUID a line";
        faults.push(Fault::at(place(document.path, None), problem));
    }
    if faults.is_empty() {
        Ok(customers)
    } else {
        Err(faults)
    }
}

//! One `[[read_caller]]`, read into types that cannot hold a bad value.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::CallersDocument,
    fields::{self, CallerField, CustomerPattern},
};
use crate::{
    access_key::KeyHash,
    config::{ConfigError, Source},
    domain::{CallerScope, CustomerAccess},
    printable::to_printable_line,
    resilience::token_bucket::RateQuota,
};

/// What a `[[read_caller]]` states, as far as it could be read. A fault told of leaves a gap.
#[derive(Debug)]
pub(super) struct CallerTable {
    /// How faults call it: `read_caller "grafana"`.
    pub(super) label: String,
    pub(super) name: Option<LocatedValue<String>>,
    pub(super) key_hashes: Vec<LocatedValue<KeyHash>>,
    pub(super) jwt_subject: Option<LocatedValue<String>>,
    pub(super) client_certificate: Option<LocatedValue<String>>,
    pub(super) customers: Option<CustomerAccess>,
    pub(super) customers_file: Option<LocatedValue<PathBuf>>,
    pub(super) scopes: Vec<LocatedValue<CallerScope>>,
    pub(super) rate: Option<RateQuota>,
}

/// A value, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct LocatedValue<T> {
    pub(super) value: T,
    pub(super) source: Source,
}

/// Reads one table of a document, and tells every fault.
struct CallerTableReader<'a> {
    document: &'a CallersDocument<'a>,
    table: &'a DeTable<'a>,
    label: String,
    /// Where the table itself stands.
    source: Source,
    errors: &'a mut Vec<ConfigError>,
}

// === impl CallerTable ===

impl CallerTable {
    /// Reads the table that is the `number`th caller, from 1.
    pub(super) fn read(
        document: &CallersDocument<'_>,
        table: &Spanned<DeValue<'_>>,
        number: usize,
        faults: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let place = document.place(table.span().start);
        let DeValue::Table(fields) = table.get_ref() else {
            let problem = "caller: is no table; expected [[caller]], once for each";
            faults.push(ConfigError::at(place, problem));
            return None;
        };
        let label = match fields.get(fields::NAME.name).map(Spanned::get_ref) {
            Some(DeValue::String(name)) => format!("caller {:?}", to_printable_line(name, 64)),
            _ => format!("caller {number}"),
        };
        let mut reader = CallerTableReader {
            document,
            table: fields,
            label,
            source: place,
            errors: faults,
        };
        reader.check_unknown_fields();
        Some(reader.read_caller())
    }
}

// === impl Reader ===

impl CallerTableReader<'_> {
    fn read_caller(mut self) -> CallerTable {
        self.check_has_proof();
        let name = self.read_one(&fields::NAME);
        self.check_exactly_one(&[fields::NAME.name]);
        self.check_exactly_one(&[fields::CUSTOMERS.name, fields::CUSTOMERS_FILE.name]);
        self.check_exactly_one(&[fields::SCOPES.name]);
        CallerTable {
            name,
            key_hashes: self.read_list(&fields::KEY_SHA256),
            jwt_subject: self.read_one(&fields::JWT_SUBJECT),
            client_certificate: self.read_one(&fields::CLIENT_CERTIFICATE),
            customers: self.read_customers(),
            customers_file: self.read_one(&fields::CUSTOMERS_FILE),
            scopes: self.read_list(&fields::SCOPES),
            rate: self.read_one(&fields::RATE).map(|rate| rate.value),
            label: self.label,
        }
    }

    fn read_customers(&mut self) -> Option<CustomerAccess> {
        let whose = self.read_list(&fields::CUSTOMERS);
        let everybodys = whose
            .iter()
            .find(|one| one.value == CustomerPattern::Everybodys);
        if let Some(everybodys) = everybodys {
            if whose.len() > 1 {
                let problem = "customers: \"*\" is everybody, so nobody stands beside it";
                self.push_error(everybodys.source.clone(), problem);
            }
            return Some(CustomerAccess::All);
        }
        let these: HashSet<_> = whose
            .iter()
            .filter_map(|one| match one.value {
                CustomerPattern::One(customer) => Some(customer),
                CustomerPattern::Everybodys => None,
            })
            .collect();
        (!these.is_empty()).then(|| CustomerAccess::Only(Arc::new(these)))
    }

    fn check_unknown_fields(&mut self) {
        for (field, _) in self.table {
            let name = field.get_ref();
            if fields::NAMES.contains(&name.as_ref()) {
                continue;
            }
            let nearest = fields::NAMES
                .into_iter()
                .min_by_key(|known| strsim::damerau_levenshtein(known, name))
                .unwrap_or_default();
            let problem = format!(
                "{}: unknown field; the nearest is {nearest}",
                to_printable_line(name, 64)
            );
            self.push_error(self.document.place(field.span().start), &problem);
        }
    }

    fn check_has_proof(&mut self) {
        let proofs = [
            fields::KEY_SHA256.name,
            fields::JWT_SUBJECT.name,
            fields::CLIENT_CERTIFICATE.name,
        ];
        if !proofs.iter().any(|proof| self.table.contains_key(*proof)) {
            let problem = format!(
                "cannot prove who it is; expected one or more of {}",
                proofs.join(", ")
            );
            self.push_error(self.source.clone(), &problem);
        }
    }

    /// That exactly one of these stands there.
    fn check_exactly_one(&mut self, names: &[&str]) {
        let stated = names
            .iter()
            .filter(|name| self.table.contains_key(**name))
            .count();
        match stated {
            1 => {}
            0 => {
                let problem = format!("{}: missing", names.join(" or "));
                self.push_error(self.source.clone(), &problem);
            }
            _ => {
                let problem = format!(
                    "{} stand beside each other; expected one",
                    names.join(" and ")
                );
                self.push_error(self.source.clone(), &problem);
            }
        }
    }

    fn read_one<T>(&mut self, field: &CallerField<T>) -> Option<LocatedValue<T>> {
        let value = self.table.get(field.name)?;
        self.parse_value(field, value)
    }

    /// A list of texts; one alone may stand without brackets.
    fn read_list<T>(&mut self, field: &CallerField<T>) -> Vec<LocatedValue<T>> {
        let Some(value) = self.table.get(field.name) else {
            return Vec::new();
        };
        let DeValue::Array(values) = value.get_ref() else {
            return self.parse_value(field, value).into_iter().collect();
        };
        if values.is_empty() {
            let problem = format!("{}: is empty; expected {}", field.name, field.expected);
            self.push_error(self.document.place(value.span().start), &problem);
        }
        let mut texts = Vec::with_capacity(values.len());
        for value in values.iter() {
            texts.extend(self.parse_value(field, value));
        }
        texts
    }

    fn parse_value<T>(
        &mut self,
        field: &CallerField<T>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<LocatedValue<T>> {
        let place = self.document.place(value.span().start);
        let (shown, why) = match value.get_ref() {
            DeValue::String(text) => match (field.parse)(text) {
                Ok(value) => {
                    return Some(LocatedValue {
                        value,
                        source: place,
                    });
                }
                Err(why) if field.shown => (format!(" = {:?}", to_printable_line(text, 100)), why),
                Err(why) => (" (value not shown)".to_owned(), why),
            },
            _ => (String::new(), "is not text in quotes".to_owned()),
        };
        let problem = format!("{}{shown}: {why}; expected {}", field.name, field.expected);
        self.push_error(place, &problem);
        None
    }

    fn push_error(&mut self, place: Source, problem: &str) {
        let problem = format!("{}: {problem}", self.label);
        self.errors.push(ConfigError::at(place, problem));
    }
}

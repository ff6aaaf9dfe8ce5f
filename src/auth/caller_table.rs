//! One `[[caller]]`, read into types that cannot hold a bad value.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::Document,
    fields::{self, Field, Whose},
};
use crate::{
    access_key::KeyHash,
    config::{Fault, Place},
    domain::{Customers, Scope},
    readable::readable,
    resilience::token_bucket::Rate,
};

/// What a `[[caller]]` states, as far as it could be read. A fault told of leaves a gap.
#[derive(Debug)]
pub(super) struct CallerTable {
    /// How faults call it: `caller "grafana"`.
    pub(super) label: String,
    pub(super) name: Option<Stated<String>>,
    pub(super) key_hashes: Vec<Stated<KeyHash>>,
    pub(super) jwt_subject: Option<Stated<String>>,
    pub(super) client_certificate: Option<Stated<String>>,
    pub(super) customers: Option<Customers>,
    pub(super) customers_file: Option<Stated<PathBuf>>,
    pub(super) scopes: Vec<Stated<Scope>>,
    pub(super) rate: Option<Rate>,
}

/// A value, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Stated<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Reads one table of a document, and tells every fault.
struct Reader<'a> {
    document: &'a Document<'a>,
    table: &'a DeTable<'a>,
    label: String,
    /// Where the table itself stands.
    place: Place,
    faults: &'a mut Vec<Fault>,
}

// === impl CallerTable ===

impl CallerTable {
    /// Reads the table that is the `number`th caller, from 1.
    pub(super) fn read(
        document: &Document<'_>,
        table: &Spanned<DeValue<'_>>,
        number: usize,
        faults: &mut Vec<Fault>,
    ) -> Option<Self> {
        let place = document.place(table.span().start);
        let DeValue::Table(fields) = table.get_ref() else {
            let problem = "caller: is no table; expected [[caller]], once for each";
            faults.push(Fault::at(place, problem));
            return None;
        };
        let label = match fields.get(fields::NAME.name).map(Spanned::get_ref) {
            Some(DeValue::String(name)) => format!("caller {:?}", readable(name, 64)),
            _ => format!("caller {number}"),
        };
        let mut reader = Reader {
            document,
            table: fields,
            label,
            place,
            faults,
        };
        reader.unknown_fields();
        Some(reader.caller())
    }
}

// === impl Reader ===

impl Reader<'_> {
    fn caller(mut self) -> CallerTable {
        self.some_proof();
        let name = self.text(&fields::NAME);
        self.required(&[fields::NAME.name]);
        self.required(&[fields::CUSTOMERS.name, fields::CUSTOMERS_FILE.name]);
        self.required(&[fields::SCOPES.name]);
        CallerTable {
            name,
            key_hashes: self.texts(&fields::KEY_SHA256),
            jwt_subject: self.text(&fields::JWT_SUBJECT),
            client_certificate: self.text(&fields::CLIENT_CERTIFICATE),
            customers: self.customers(),
            customers_file: self.text(&fields::CUSTOMERS_FILE),
            scopes: self.texts(&fields::SCOPES),
            rate: self.text(&fields::RATE).map(|rate| rate.value),
            label: self.label,
        }
    }

    fn customers(&mut self) -> Option<Customers> {
        let whose = self.texts(&fields::CUSTOMERS);
        let everybodys = whose.iter().find(|one| one.value == Whose::Everybodys);
        if let Some(everybodys) = everybodys {
            if whose.len() > 1 {
                let problem = "customers: \"*\" is everybody, so nobody stands beside it";
                self.fault(everybodys.place.clone(), problem);
            }
            return Some(Customers::All);
        }
        let these: HashSet<_> = whose
            .iter()
            .filter_map(|one| match one.value {
                Whose::One(customer) => Some(customer),
                Whose::Everybodys => None,
            })
            .collect();
        (!these.is_empty()).then(|| Customers::Only(Arc::new(these)))
    }

    fn unknown_fields(&mut self) {
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
                readable(name, 64)
            );
            self.fault(self.document.place(field.span().start), &problem);
        }
    }

    fn some_proof(&mut self) {
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
            self.fault(self.place.clone(), &problem);
        }
    }

    /// That exactly one of these stands there.
    fn required(&mut self, names: &[&str]) {
        let stated = names
            .iter()
            .filter(|name| self.table.contains_key(**name))
            .count();
        match stated {
            1 => {}
            0 => {
                let problem = format!("{}: missing", names.join(" or "));
                self.fault(self.place.clone(), &problem);
            }
            _ => {
                let problem = format!(
                    "{} stand beside each other; expected one",
                    names.join(" and ")
                );
                self.fault(self.place.clone(), &problem);
            }
        }
    }

    fn text<T>(&mut self, field: &Field<T>) -> Option<Stated<T>> {
        let value = self.table.get(field.name)?;
        self.value(field, value)
    }

    /// A list of texts; one alone may stand without brackets.
    fn texts<T>(&mut self, field: &Field<T>) -> Vec<Stated<T>> {
        let Some(value) = self.table.get(field.name) else {
            return Vec::new();
        };
        let DeValue::Array(values) = value.get_ref() else {
            return self.value(field, value).into_iter().collect();
        };
        if values.is_empty() {
            let problem = format!("{}: is empty; expected {}", field.name, field.expected);
            self.fault(self.document.place(value.span().start), &problem);
        }
        let mut texts = Vec::with_capacity(values.len());
        for value in values.iter() {
            texts.extend(self.value(field, value));
        }
        texts
    }

    fn value<T>(&mut self, field: &Field<T>, value: &Spanned<DeValue<'_>>) -> Option<Stated<T>> {
        let place = self.document.place(value.span().start);
        let (shown, why) = match value.get_ref() {
            DeValue::String(text) => match (field.parse)(text) {
                Ok(value) => return Some(Stated { value, place }),
                Err(why) if field.shown => (format!(" = {:?}", readable(text, 100)), why),
                Err(why) => (" (value not shown)".to_owned(), why),
            },
            _ => (String::new(), "is not text in quotes".to_owned()),
        };
        let problem = format!("{}{shown}: {why}; expected {}", field.name, field.expected);
        self.fault(place, &problem);
        None
    }

    fn fault(&mut self, place: Place, problem: &str) {
        let problem = format!("{}: {problem}", self.label);
        self.faults.push(Fault::at(place, problem));
    }
}

//! The callers file, and the files of customers that it names, read as one.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    hash::Hash,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    caller_table::{CallerTable, LocatedValue},
    customers_file,
    document::{self, CallersDocument},
};
use crate::{
    access_key::KeyHash,
    config::{ConfigError, ConfigErrors, Source},
    domain::{Caller, CustomerAccess, CustomerId},
    resilience::token_bucket::RateQuota,
};

/// What the files say at one time, right or wrong.
#[derive(Debug)]
pub(super) struct ParsedCallersFile {
    /// Every file that was looked at.
    pub(super) files: Vec<PathBuf>,
    /// Of the callers file alone, as `sha256sum` shows it; of nothing where it cannot be read.
    pub(super) sha256: [u8; 32],
    /// Of all contents.
    pub(super) fingerprint: [u8; 32],
    pub(super) callers: Result<Vec<CallerEntry>, ConfigErrors>,
}

/// A caller as the file declares it.
#[derive(Debug)]
pub(super) struct CallerEntry {
    pub(super) caller: Caller,
    pub(super) key_hashes: Vec<KeyHash>,
    pub(super) jwt_subject: Option<String>,
    pub(super) client_certificate: Option<String>,
    pub(super) rate: Option<RateQuota>,
}

/// Reads everything anew.
pub(super) fn read(path: &Path) -> ParsedCallersFile {
    let mut reader = CallersFileReader::default();
    let callers = match reader.read_file(path) {
        Some(text) => {
            let document = CallersDocument { path, text: &text };
            reader.read_callers(&document)
        }
        None => Vec::new(),
    };
    reader.into_parsed(callers)
}

#[derive(Default)]
struct CallersFileReader {
    files: Vec<PathBuf>,
    /// Of each file, in the order in which they were read.
    digests: Vec<[u8; 32]>,
    errors: Vec<ConfigError>,
}

// === impl FilesReader ===

impl CallersFileReader {
    fn read_file(&mut self, path: &Path) -> Option<String> {
        let text = document::read(path);
        self.files.push(path.to_owned());
        let content = match &text {
            Ok(text) => text.as_bytes(),
            Err(_) => &[],
        };
        self.digests.push(Sha256::digest(content).into());
        text.map_err(|fault| self.errors.push(fault)).ok()
    }

    fn read_callers(&mut self, document: &CallersDocument<'_>) -> Vec<CallerEntry> {
        let (table, errors) = DeTable::parse_recoverable(document.text);
        if !errors.is_empty() {
            // The line is not shown: nobody can say what stands in it.
            self.errors.extend(errors.iter().map(|error| {
                let place = document.place(error.span().map_or(0, |span| span.start));
                ConfigError::at(place, format!("not TOML: {}", error.message()))
            }));
            return Vec::new();
        }
        let tables = self.read_tables(document, table.get_ref());
        self.check_unique(&tables);
        tables
            .into_iter()
            .filter_map(|table| self.caller_entry(document.path, table))
            .collect()
    }

    fn read_tables(
        &mut self,
        document: &CallersDocument<'_>,
        root: &DeTable<'_>,
    ) -> Vec<CallerTable> {
        for (name, _) in root.iter().filter(|(name, _)| name.get_ref() != "caller") {
            let problem = format!("{}: unknown; expected [[caller]]", name.get_ref());
            let place = document.place(name.span().start);
            self.errors.push(ConfigError::at(place, problem));
        }
        let callers = match root.get("caller").map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Array(callers))) if !callers.is_empty() => callers,
            Some((value, _)) => {
                let problem = "caller: is no list of tables; expected [[caller]], once for each";
                let place = document.place(value.span().start);
                self.errors.push(ConfigError::at(place, problem));
                return Vec::new();
            }
            None => {
                let problem = "names no caller, so nobody could call; expected [[caller]]";
                let place = document::place(document.path, None);
                self.errors.push(ConfigError::at(place, problem));
                return Vec::new();
            }
        };
        let callers: Vec<&Spanned<DeValue<'_>>> = callers.iter().collect();
        (1..)
            .zip(callers)
            .filter_map(|(number, table)| {
                CallerTable::read(document, table, number, &mut self.errors)
            })
            .collect()
    }

    /// That each proof proves one caller, and each name is one caller's.
    fn check_unique(&mut self, tables: &[CallerTable]) {
        let names = tables.iter().filter_map(|of| Some((of, of.name.as_ref()?)));
        self.check_unique_field("name", names);
        let hashes = tables
            .iter()
            .flat_map(|of| of.key_hashes.iter().map(move |hash| (of, hash)));
        self.check_unique_field("key_sha256", hashes);
        let subjects = tables
            .iter()
            .filter_map(|of| Some((of, of.jwt_subject.as_ref()?)));
        self.check_unique_field("jwt_subject", subjects);
        let certificates = tables
            .iter()
            .filter_map(|of| Some((of, of.client_certificate.as_ref()?)));
        self.check_unique_field("client_certificate", certificates);
    }

    fn check_unique_field<'a, T: Eq + Hash + 'a>(
        &mut self,
        field: impl Display,
        claims: impl Iterator<Item = (&'a CallerTable, &'a LocatedValue<T>)>,
    ) {
        let mut owners: HashMap<&T, &Source> = HashMap::new();
        for (table, claim) in claims {
            if let Some(first) = owners.insert(&claim.value, &claim.source) {
                let problem = format!(
                    "{}: {field}: stands at {first} already; expected another",
                    table.label
                );
                self.errors
                    .push(ConfigError::at(claim.source.clone(), problem));
            }
        }
    }

    /// `None` where something is missing, which is a fault already told of.
    fn caller_entry(&mut self, callers_file: &Path, table: CallerTable) -> Option<CallerEntry> {
        let customers = match &table.customers_file {
            Some(file) => self
                .read_customers_file(callers_file, file)
                .map(CustomerAccess::Only),
            None => table.customers,
        };
        let scopes = table.scopes.iter().map(|scope| scope.value).collect();
        Some(CallerEntry {
            caller: Caller::new(table.name?.value, customers?, scopes),
            key_hashes: table.key_hashes.iter().map(|hash| hash.value).collect(),
            jwt_subject: table.jwt_subject.map(|subject| subject.value),
            client_certificate: table.client_certificate.map(|name| name.value),
            rate: table.rate,
        })
    }

    fn read_customers_file(
        &mut self,
        callers_file: &Path,
        file: &LocatedValue<PathBuf>,
    ) -> Option<Arc<HashSet<CustomerId>>> {
        let folder = callers_file.parent().unwrap_or(Path::new(""));
        let path = folder.join(&file.value);
        let text = self.read_file(&path)?;
        let document = CallersDocument {
            path: &path,
            text: &text,
        };
        customers_file::parse(&document)
            .map(Arc::new)
            .map_err(|faults| self.errors.extend(faults))
            .ok()
    }

    fn into_parsed(self, callers: Vec<CallerEntry>) -> ParsedCallersFile {
        let fingerprint = Sha256::digest(self.digests.concat()).into();
        ParsedCallersFile {
            files: self.files,
            sha256: self.digests.first().copied().unwrap_or_default(),
            fingerprint,
            callers: if self.errors.is_empty() {
                Ok(callers)
            } else {
                Err(ConfigErrors::new(self.errors))
            },
        }
    }
}

//! What was stated, where, and what wins.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    ConfigSources,
    error::{ConfigError, Source},
    file,
    keys::{self, AnyConfigKey, ConfigKey, InputValue, VARIABLE_PREFIX},
};

/// Every known key that was stated, as the source stated it that beats the others.
#[derive(Debug, Default)]
pub(super) struct RawSettings {
    values: BTreeMap<&'static str, RawValue>,
    /// A configuration file was named.
    has_file: bool,
    /// Set when the file could not be read, so that nobody can say what it would have stated.
    file_unreadable: bool,
}

#[derive(Debug)]
struct RawValue {
    /// `None`: the key refused the value.
    text: Option<String>,
    source: Source,
}

impl RawSettings {
    /// Reads every source, the one that is beaten first. A fault in any source is one, beaten or
    /// not.
    pub(super) fn collect(sources: ConfigSources, faults: &mut Vec<ConfigError>) -> Self {
        let mut settings = Self {
            has_file: sources.file.is_some(),
            ..Self::default()
        };
        match sources.file.as_deref().map(file::read) {
            None => {}
            Some(Ok(entries)) => {
                for entry in entries {
                    match keys::find(&entry.name) {
                        Some(key) => settings.insert(key, entry.value, entry.value_source, faults),
                        None => {
                            faults.push(ConfigError::unknown_key(entry.name_source, &entry.name))
                        }
                    }
                }
            }
            Some(Err(unreadable)) => {
                faults.extend(unreadable);
                settings.file_unreadable = true;
            }
        }
        for (name, value) in sources.environment {
            settings.insert_variable(name, value, faults);
        }
        for flag in sources.flags {
            let place = Source::Flag(flag.flag);
            match keys::find(&flag.key) {
                Some(key) => settings.insert(key, InputValue::Text(flag.value), place, faults),
                None => faults.push(ConfigError::unknown_key(place, &flag.key)),
            }
        }
        settings
    }

    /// The value in force: as stated, else by default. `None` if there is neither, or if the
    /// stated one was refused.
    pub(super) fn get<T>(&self, key: &ConfigKey<T>) -> Option<T> {
        let text = match self.values.get(key.name()) {
            Some(stated) => stated.text.as_deref()?,
            None => key.default()?,
        };
        key.parse(text).ok()
    }

    /// Where a key was stated, if it was.
    pub(super) fn source_of(&self, name: &str) -> Option<&Source> {
        self.values.get(name).map(|stated| &stated.source)
    }

    /// A key that has to be stated and is not.
    pub(super) fn missing_key(&self, key: &dyn AnyConfigKey, because: &str) -> ConfigError {
        ConfigError::missing_key(key, because, self.has_file)
    }

    pub(super) const fn is_file_unreadable(&self) -> bool {
        self.file_unreadable
    }

    /// Where each stated key was stated.
    pub(super) fn into_sources(self) -> BTreeMap<&'static str, Source> {
        self.values
            .into_iter()
            .map(|(name, stated)| (name, stated.source))
            .collect()
    }

    fn insert_variable(&mut self, name: OsString, value: OsString, faults: &mut Vec<ConfigError>) {
        let name = name.to_string_lossy().into_owned();
        let Some(path) = name.strip_prefix(VARIABLE_PREFIX) else {
            let misspelled = keys::by_misspelled_variable(&name);
            faults.extend(misspelled.map(|key| ConfigError::misspelled_variable(name, key)));
            return;
        };
        let path = path.to_lowercase().replace("__", ".");
        let value = value
            .into_string()
            .map_or(InputValue::Other("not UTF-8"), InputValue::Text);
        match keys::find(&path) {
            // The spelling counts: `…__cache__fresh_for` is another variable to the system.
            Some(key) if keys::variable(key.name()) == name => {
                self.insert(key, value, Source::Variable(name), faults);
            }
            _ => faults.push(ConfigError::unknown_key(Source::Variable(name), &path)),
        }
    }

    fn insert(
        &mut self,
        key: &'static dyn AnyConfigKey,
        value: InputValue,
        place: Source,
        faults: &mut Vec<ConfigError>,
    ) {
        let text = match key.accept(value.clone()) {
            Ok(text) => Some(text),
            Err(why) => {
                faults.push(ConfigError::bad_value(place.clone(), key, &value, &why));
                None
            }
        };
        self.values.insert(
            key.name(),
            RawValue {
                text,
                source: place,
            },
        );
    }
}

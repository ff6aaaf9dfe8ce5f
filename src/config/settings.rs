//! The keys that are set, each with the value of the source that wins.

use std::collections::BTreeMap;

use super::{
    error::{ConfigError, Source},
    key::{AnyConfigKey, ConfigKey, InputValue},
};

/// The value of each key that is set, and the defaults that depend on other keys.
#[derive(Clone, Debug, Default)]
pub(super) struct RawSettings {
    values: BTreeMap<&'static str, RawValue>,
    defaults: BTreeMap<&'static str, String>,
    /// True if a configuration file was named.
    pub(super) has_file: bool,
    /// True if the file could not be read, so that keys may only seem to be missing.
    pub(super) is_file_unreadable: bool,
}

#[derive(Clone, Debug)]
struct RawValue {
    /// `None`: the value is invalid.
    text: Option<String>,
    source: Source,
}

impl RawSettings {
    /// Sets a key, and replaces the value of an earlier source. Reports an invalid value.
    pub(super) fn insert(
        &mut self,
        key: &'static dyn AnyConfigKey,
        value: &InputValue,
        source: Source,
        errors: &mut Vec<ConfigError>,
    ) {
        let text = match key.check(value) {
            Ok(text) => Some(text),
            Err(reason) => {
                errors.push(ConfigError::bad_value(source.clone(), key, value, &reason));
                None
            }
        };
        self.values.insert(key.name(), RawValue { text, source });
    }

    /// Sets the value that a key has if no source sets it.
    pub(super) fn set_default(&mut self, key: &'static dyn AnyConfigKey, text: String) {
        self.defaults.insert(key.name(), text);
    }

    /// Returns the value in effect; `None` if there is none, or an invalid one.
    pub(super) fn get<T>(&self, key: &ConfigKey<T>) -> Option<T> {
        key.parse(self.text(key)?).ok()
    }

    /// Returns the value in effect as it was written; `None` if there is none, or an invalid one.
    pub(super) fn text(&self, key: &dyn AnyConfigKey) -> Option<&str> {
        match self.values.get(key.name()) {
            Some(value) => value.text.as_deref(),
            None => match self.defaults.get(key.name()) {
                Some(text) => Some(text),
                None => key.default(),
            },
        }
    }

    /// Returns the source of a key, if it is set.
    pub(super) fn source_of(&self, name: &str) -> Option<&Source> {
        self.values.get(name).map(|value| &value.source)
    }

    /// Returns true if a key is set, even to an invalid value.
    pub(super) fn is_set(&self, key: &dyn AnyConfigKey) -> bool {
        self.values.contains_key(key.name())
    }

    /// Returns the name of a key of a table that is set.
    pub(super) fn set_key_of(&self, table: &str) -> Option<&'static str> {
        let mut names = self.values.keys().copied();
        names.find(|name| matches!(name.rsplit_once('.'), Some((of, _)) if of == table))
    }
}

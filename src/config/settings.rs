//! What was stated, where, and what wins.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    Sources,
    fault::{Fault, Place},
    file,
    keys::{self, AnyKey, Key, VARIABLE_PREFIX, Value},
};

/// Every known key that was stated, as the source stated it that beats the others.
#[derive(Debug, Default)]
pub(super) struct Settings {
    stated: BTreeMap<&'static str, Stated>,
    /// A configuration file was named.
    has_file: bool,
    /// Set when the file could not be read, so that nobody can say what it would have stated.
    incomplete: bool,
}

#[derive(Debug)]
struct Stated {
    /// `None`: the key refused the value.
    text: Option<String>,
    place: Place,
}

impl Settings {
    /// Reads every source, the one that is beaten first. A fault in any source is one, beaten or
    /// not.
    pub(super) fn gather(sources: Sources, faults: &mut Vec<Fault>) -> Self {
        let mut settings = Self {
            has_file: sources.file.is_some(),
            ..Self::default()
        };
        match sources.file.as_deref().map(file::read) {
            None => {}
            Some(Ok(entries)) => {
                for entry in entries {
                    match keys::find(&entry.name) {
                        Some(key) => settings.state(key, entry.value, entry.value_place, faults),
                        None => faults.push(Fault::unknown(entry.name_place, &entry.name)),
                    }
                }
            }
            Some(Err(unreadable)) => {
                faults.extend(unreadable);
                settings.incomplete = true;
            }
        }
        for (name, value) in sources.environment {
            settings.state_variable(name, value, faults);
        }
        for flag in sources.flags {
            let place = Place::Flag(flag.flag);
            match keys::find(&flag.key) {
                Some(key) => settings.state(key, Value::Text(flag.value), place, faults),
                None => faults.push(Fault::unknown(place, &flag.key)),
            }
        }
        settings
    }

    /// The value in force: as stated, else by default. `None` if there is neither, or if the
    /// stated one was refused.
    pub(super) fn get<T>(&self, key: &Key<T>) -> Option<T> {
        let text = match self.stated.get(key.name()) {
            Some(stated) => stated.text.as_deref()?,
            None => key.default()?,
        };
        key.parse(text).ok()
    }

    /// Where a key was stated, if it was.
    pub(super) fn place(&self, name: &str) -> Option<&Place> {
        self.stated.get(name).map(|stated| &stated.place)
    }

    /// A key that has to be stated and is not.
    pub(super) fn missing(&self, key: &dyn AnyKey, because: &str) -> Fault {
        Fault::missing(key, because, self.has_file)
    }

    pub(super) const fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Where each stated key was stated.
    pub(super) fn into_places(self) -> BTreeMap<&'static str, Place> {
        self.stated
            .into_iter()
            .map(|(name, stated)| (name, stated.place))
            .collect()
    }

    fn state_variable(&mut self, name: OsString, value: OsString, faults: &mut Vec<Fault>) {
        let name = name.to_string_lossy().into_owned();
        let Some(path) = name.strip_prefix(VARIABLE_PREFIX) else {
            let misspelled = keys::by_misspelled_variable(&name);
            faults.extend(misspelled.map(|key| Fault::misspelled_variable(name, key)));
            return;
        };
        let path = path.to_lowercase().replace("__", ".");
        let value = value
            .into_string()
            .map_or(Value::Other("not UTF-8"), Value::Text);
        match keys::find(&path) {
            // The spelling counts: `…__cache__fresh_for` is another variable to the system.
            Some(key) if keys::variable(key.name()) == name => {
                self.state(key, value, Place::Variable(name), faults);
            }
            _ => faults.push(Fault::unknown(Place::Variable(name), &path)),
        }
    }

    fn state(
        &mut self,
        key: &'static dyn AnyKey,
        value: Value,
        place: Place,
        faults: &mut Vec<Fault>,
    ) {
        let text = match key.accept(value.clone()) {
            Ok(text) => Some(text),
            Err(why) => {
                faults.push(Fault::bad_value(place.clone(), key, &value, &why));
                None
            }
        };
        self.stated.insert(key.name(), Stated { text, place });
    }
}

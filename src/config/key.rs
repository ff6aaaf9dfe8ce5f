//! A configuration key: its name, its type, and when it must be set.

use super::value_type::{UnquotedType, ValueType, list_items};

/// The beginning of the names of our environment variables.
///
/// It has two underscores because Kubernetes sets `USAGE_PROXY_SERVICE_HOST` and the like for a
/// service of this name.
pub(super) const VARIABLE_PREFIX: &str = "USAGE_PROXY__";

/// A key whose value is a `T`.
pub(super) struct ConfigKey<T: 'static> {
    name: &'static str,
    presence: KeyPresence,
    value_type: ValueType<T>,
}

/// The rule that says when a key must be set.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyPresence {
    /// It has this value unless it is set.
    Default(&'static str),
    /// It may be absent.
    Optional,
    /// It must be set.
    Required,
    /// It must be set if another key of its table is.
    RequiredInTable,
    /// It must be set with these values of `upstream.auth.kind`, and must not with others.
    RequiredBy(&'static [&'static str]),
    /// It may be set with these values of `upstream.auth.kind`, and must not with others.
    AllowedBy(&'static [&'static str]),
}

/// A value as a source has it, before its key checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputValue {
    Text(String),
    /// A TOML value without quotes, as text.
    Unquoted(UnquotedType, String),
    /// A value that no key accepts, described: "a table".
    Other(&'static str),
}

/// A key without the type of its value.
pub(super) trait AnyConfigKey: Sync {
    fn name(&self) -> &'static str;
    fn presence(&self) -> KeyPresence;
    /// Completes "expected …".
    fn expected(&self) -> &'static str;
    /// Returns the text of a valid value, or the reason why it is invalid.
    fn check(&self, value: &InputValue) -> Result<String, String>;
    /// Formats the text of a valid value as TOML.
    fn to_toml(&self, text: &str) -> String;

    fn default(&self) -> Option<&'static str> {
        match self.presence() {
            KeyPresence::Default(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the name of this key's table.
    fn table(&self) -> &'static str {
        self.name().rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// Returns the environment variable of this key.
    fn variable(&self) -> String {
        let path = self.name().to_ascii_uppercase().replace('.', "__");
        format!("{VARIABLE_PREFIX}{path}")
    }
}

impl<T> ConfigKey<T> {
    pub(super) const fn new(
        name: &'static str,
        presence: KeyPresence,
        value_type: ValueType<T>,
    ) -> Self {
        Self {
            name,
            presence,
            value_type,
        }
    }

    pub(super) fn parse(&self, text: &str) -> Result<T, String> {
        (self.value_type.parse)(text)
    }
}

impl<T> AnyConfigKey for ConfigKey<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn presence(&self) -> KeyPresence {
        self.presence
    }

    fn expected(&self) -> &'static str {
        self.value_type.expected
    }

    fn check(&self, value: &InputValue) -> Result<String, String> {
        let text = match (value, self.value_type.unquoted) {
            (InputValue::Text(text), _) => text,
            (InputValue::Unquoted(given, text), Some(accepted)) if *given == accepted => text,
            (InputValue::Unquoted(UnquotedType::Integer, text), Some(UnquotedType::Fraction)) => {
                text
            }
            (InputValue::Unquoted(given, _), _) => return Err(format!("is {given}")),
            (InputValue::Other(given), _) => return Err(format!("is {given}")),
        };
        self.parse(text).map(|_| text.clone())
    }

    fn to_toml(&self, text: &str) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self.value_type.unquoted {
            Some(UnquotedType::Boolean) => text.to_owned(),
            // TOML has fewer spellings of a number than Rust.
            Some(UnquotedType::Integer) => match text.parse::<i64>() {
                Ok(number) => number.to_string(),
                Err(_) => quoted(text),
            },
            Some(UnquotedType::Fraction) => match text.parse::<f64>() {
                Ok(number) => number.to_string(),
                Err(_) => quoted(text),
            },
            Some(UnquotedType::List) => {
                let items: Vec<_> = list_items(text).map(quoted).collect();
                format!("[{}]", items.join(", "))
            }
            None => quoted(text),
        }
    }
}

/// Returns the last part of a dotted name.
pub(super) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

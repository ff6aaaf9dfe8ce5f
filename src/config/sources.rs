//! The sources of configuration: file, environment and flags.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use super::{
    error::{ConfigError, Source},
    file,
    key::{AnyConfigKey, InputValue, VARIABLE_PREFIX},
    keys,
    sections::tracing,
    settings::RawSettings,
};

/// OpenTelemetry's URL of a collector of spans, with its path; it wins over the general one.
const OTEL_TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// OpenTelemetry's own variables, each with its key; a later one wins.
const OTEL_VARIABLES: [(&str, &dyn AnyConfigKey); 4] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", &tracing::otlp_endpoint),
    (OTEL_TRACES_ENDPOINT, &tracing::otlp_endpoint),
    ("OTEL_SERVICE_NAME", &tracing::service_name),
    (OTEL_SAMPLER_ARG, &tracing::sample_ratio),
];

/// The argument of a sampler; a ratio only where the sampler takes one.
const OTEL_SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// OpenTelemetry's variables that decide whether the ones above count.
const OTEL_SWITCHES: [&str; 3] = [
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
];

/// The sources of configuration: a flag wins over the environment, which wins over the file, which
/// wins over OpenTelemetry's variables.
#[derive(Clone, Default)]
pub struct ConfigSources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables. Names that begin with `USAGE_PROXY__` and some of OpenTelemetry's are
    /// read, a key with single underscores is an error, and others are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys that are set on the command line.
    pub flags: Vec<ConfigFlag>,
}

/// A key that is set on the command line.
#[derive(Clone, Debug)]
pub struct ConfigFlag {
    /// The flag as it is typed, such as `--listen`.
    pub flag: String,
    /// The key, such as `server.listen`.
    pub key: String,
    /// The value, as text; `None` is an error that the key reports.
    pub value: Option<String>,
}

impl ConfigSources {
    /// Returns the environment of this process, without file or flags.
    pub fn from_process() -> Self {
        let ours = |name: &OsStr| {
            name.to_string_lossy().starts_with("USAGE_PROXY_")
                || OTEL_VARIABLES.iter().any(|(otel, _)| name == *otel)
                || OTEL_SWITCHES.iter().any(|switch| name == *switch)
        };
        Self {
            environment: std::env::vars_os().filter(|(name, _)| ours(name)).collect(),
            ..Self::default()
        }
    }

    /// Adds a TOML file.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds a flag: its name, and the key that it sets.
    #[must_use]
    pub fn with_flag(
        mut self,
        flag: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        self.flags.push(ConfigFlag {
            flag: flag.into(),
            key: key.into(),
            value: Some(value.into()),
        });
        self
    }

    /// Reads every source, from the one that yields to the one that wins. A mistake is an error
    /// even if another source wins.
    pub(super) fn collect(self, errors: &mut Vec<ConfigError>) -> RawSettings {
        let mut settings = RawSettings::default();
        settings.has_file = self.file.is_some();
        let ignored = otel_ignored(&self.environment);
        for (name, key) in OTEL_VARIABLES {
            if let Some(value) = variable(&self.environment, name)
                && !ignored(name)
            {
                let value = otel_value(name, variable_value(value.clone()));
                settings.insert(key, &value, Source::Variable(name.to_owned()), errors);
            }
        }
        match self.file.as_deref().map(file::read) {
            None => {}
            Some(Ok(entries)) => {
                for entry in entries {
                    match keys::find(&entry.name) {
                        Some(key) => {
                            settings.insert(key, &entry.value, entry.value_source, errors);
                        }
                        None => errors.push(keys::unknown_key(entry.name_source, &entry.name)),
                    }
                }
            }
            Some(Err(unreadable)) => {
                errors.extend(unreadable);
                settings.is_file_unreadable = true;
            }
        }
        for (name, value) in self.environment {
            read_variable(&name, value, &mut settings, errors);
        }
        for flag in self.flags {
            let source = Source::Flag(flag.flag);
            match keys::find(&flag.key) {
                Some(key) => {
                    let missing = InputValue::Other("without a value, which goes after a `=`");
                    let value = flag.value.map_or(missing, InputValue::Text);
                    settings.insert(key, &value, source, errors);
                }
                None => errors.push(keys::unknown_key(source, &flag.key)),
            }
        }
        settings
    }
}

fn read_variable(
    name: &OsStr,
    value: OsString,
    settings: &mut RawSettings,
    errors: &mut Vec<ConfigError>,
) {
    let name = name.to_string_lossy().into_owned();
    let Some(path) = name.strip_prefix(VARIABLE_PREFIX) else {
        if let Some(key) = keys::by_misspelled_variable(&name) {
            let problem = format!(
                "is not read; expected {}, with two underscores before each part of {}",
                key.variable(),
                key.name(),
            );
            errors.push(ConfigError::at(Source::Variable(name), problem));
        }
        return;
    };
    let path = path.to_lowercase().replace("__", ".");
    match keys::find(&path) {
        // The case counts: `…__cache__fresh_for` is another variable.
        Some(key) if key.variable() == name => {
            settings.insert(key, &variable_value(value), Source::Variable(name), errors);
        }
        _ => errors.push(keys::unknown_key(Source::Variable(name), &path)),
    }
}

/// Returns a variable of the environment that is not empty.
fn variable<'a>(environment: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsString> {
    let mut variables = environment.iter();
    let found = variables.find(|(found, value)| found == name && !value.is_empty());
    found.map(|(_, value)| value)
}

/// Returns a test for OpenTelemetry's variables that have no effect: all where its SDK or its exporter
/// of spans is off, and the argument of a sampler that takes no ratio.
fn otel_ignored(environment: &[(OsString, OsString)]) -> impl Fn(&str) -> bool + use<> {
    let is = |name, values: &[&str]| {
        variable(environment, name).is_some_and(|value| {
            values
                .iter()
                .any(|expected| value.eq_ignore_ascii_case(expected))
        })
    };
    let is_off = is("OTEL_SDK_DISABLED", &["true"]) || is("OTEL_TRACES_EXPORTER", &["none"]);
    let ratio_samplers = ["traceidratio", "parentbased_traceidratio"];
    let takes_ratio = variable(environment, "OTEL_TRACES_SAMPLER").is_none()
        || is("OTEL_TRACES_SAMPLER", &ratio_samplers);
    move |name| is_off || (name == OTEL_SAMPLER_ARG && !takes_ratio)
}

/// Returns the base URL for the URL of a collector.
fn otel_value(name: &str, value: InputValue) -> InputValue {
    match value {
        InputValue::Text(url) if name == OTEL_TRACES_ENDPOINT => {
            match url.strip_suffix("/v1/traces") {
                Some(base) => InputValue::Text(base.to_owned()),
                None => InputValue::Other("a URL that does not end in `/v1/traces`"),
            }
        }
        value => value,
    }
}

fn variable_value(value: OsString) -> InputValue {
    value
        .into_string()
        .map_or(InputValue::Other("not UTF-8"), InputValue::Text)
}

impl fmt::Debug for ConfigSources {
    /// Writes no value of the environment, which may be anybody's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("ConfigSources")
            .field("file", &self.file)
            .field("environment", &names)
            .field("flags", &self.flags)
            .finish()
    }
}

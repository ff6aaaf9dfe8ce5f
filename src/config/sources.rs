use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use super::keys::SHORT_VARIABLE_PREFIX;

/// Where configuration is looked for: flags beat the environment, which beats the file.
#[derive(Clone, Default)]
pub struct ConfigSources {
    /// A TOML file; none is read if `None`.
    pub file: Option<PathBuf>,
    /// Environment variables. Those whose names begin with `USAGE_PROXY__` are read, those that equal
    /// a key with single underscores are faults, and others are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys stated on the command line.
    pub flags: Vec<ConfigFlag>,
}

/// A key stated on the command line.
#[derive(Clone, Debug)]
pub struct ConfigFlag {
    /// The flag as it is typed, such as `--listen`.
    pub flag: String,
    /// The key that it states, such as `server.listen`.
    pub key: String,
    /// The value, as text.
    pub value: String,
}

impl ConfigSources {
    /// The environment of this process, without file or flags.
    pub fn from_process() -> Self {
        let ours = |name: &OsStr| name.to_string_lossy().starts_with(SHORT_VARIABLE_PREFIX);
        Self {
            environment: std::env::vars_os().filter(|(name, _)| ours(name)).collect(),
            ..Self::default()
        }
    }

    /// With a TOML file.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With one more flag, the name it is typed by, and the key that it states.
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
            value: value.into(),
        });
        self
    }
}

impl fmt::Debug for ConfigSources {
    /// Without the environment's values: they may be anybody's secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment", &names)
            .field("flags", &self.flags)
            .finish()
    }
}

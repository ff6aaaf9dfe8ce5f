mod jwt;

use std::path::PathBuf;

pub use self::jwt::JwtConfig;
use super::{keys, settings::RawSettings};

/// `callers.*`: who may call, and how they prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallersConfig {
    /// The file that names the callers; `None`: it names nobody.
    pub file: Option<PathBuf>,
    /// Whether anyone may call, from other machines too. Default `false`; never beside `file` or
    /// `jwt`.
    pub anonymous: bool,
    /// Whose tokens are believed; `None`: nobody's.
    pub jwt: Option<JwtConfig>,
}

impl CallersConfig {
    pub(super) fn read(settings: &RawSettings) -> Option<Self> {
        let file = match settings.source_of(keys::CALLERS_FILE.name()) {
            Some(_) => Some(settings.get(&keys::CALLERS_FILE)?),
            None => None,
        };
        Some(Self {
            file,
            anonymous: settings.get(&keys::CALLERS_ANONYMOUS)?,
            jwt: JwtConfig::read(settings),
        })
    }
}

use std::path::PathBuf;

use super::{
    keys::{self, ConfigKey},
    settings::RawSettings,
};

/// `server.tls.*` and `admin.tls.*`: TLS on a listener. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate and those between it and its CA, in PEM.
    pub certificate_file: PathBuf,
    /// The certificate's private key, in PEM.
    pub key_file: PathBuf,
    /// The CAs whose certificates clients may show, in PEM; clients are not asked without.
    pub client_ca_file: Option<PathBuf>,
}

/// The keys of one listener's TLS.
pub(super) struct TlsConfigKeys {
    pub(super) certificate_file: &'static ConfigKey<PathBuf>,
    pub(super) key_file: &'static ConfigKey<PathBuf>,
    pub(super) client_ca_file: &'static ConfigKey<PathBuf>,
}

pub(super) static SERVER_TLS: TlsConfigKeys = TlsConfigKeys {
    certificate_file: &keys::SERVER_TLS_CERTIFICATE_FILE,
    key_file: &keys::SERVER_TLS_KEY_FILE,
    client_ca_file: &keys::SERVER_TLS_CLIENT_CA_FILE,
};

pub(super) static ADMIN_TLS: TlsConfigKeys = TlsConfigKeys {
    certificate_file: &keys::ADMIN_TLS_CERTIFICATE_FILE,
    key_file: &keys::ADMIN_TLS_KEY_FILE,
    client_ca_file: &keys::ADMIN_TLS_CLIENT_CA_FILE,
};

impl TlsConfig {
    /// `None` without a certificate: then the listener speaks plain HTTP.
    pub(super) fn read(settings: &RawSettings, keys: &TlsConfigKeys) -> Option<Self> {
        Some(Self {
            certificate_file: settings.get(keys.certificate_file)?,
            key_file: settings.get(keys.key_file)?,
            client_ca_file: settings.get(keys.client_ca_file),
        })
    }
}

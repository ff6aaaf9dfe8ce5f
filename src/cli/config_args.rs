//! The flags of commands that read the configuration, and the files that it names.

use std::path::{Path, PathBuf};

use clap::Args;

use super::shell;
use crate::{
    auth,
    config::{
        AuthConfig, Config, ConfigErrors, ConfigFlag, ConfigSources, StoreUrl, TlsConfig, secret,
    },
    observability::traces,
    portfolio_file,
    sealing::{SealingKeyError, SealingKeys},
};

/// Flags for the sources of configuration.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the API listener (server.listen).
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of the admin listener (admin.listen).
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Any other key, such as cache.fresh_for=5m; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The key of the only secret that a command writes.
pub(super) const REFRESH_TOKEN_KEY: &str = "upstream.auth.refresh_token_file";

/// The key of the file with the store's keys.
pub(super) const ENCRYPTION_KEY: &str = "store.encryption_key_file";

/// Returns the files of secrets, each with its key.
pub(super) fn secret_files(config: &Config) -> Vec<(&'static str, &Path)> {
    let auth = &config.upstream.auth;
    let proof = auth.grant().map(|grant| grant.client_auth.files());
    let token = match auth {
        AuthConfig::RefreshToken {
            refresh_token_file, ..
        } => Some((REFRESH_TOKEN_KEY, refresh_token_file.as_path())),
        AuthConfig::TokenFile { token_file } => {
            Some(("upstream.auth.token_file", token_file.as_path()))
        }
        AuthConfig::ClientCredentials { .. } => None,
    };
    let store = &config.store;
    let of_store = [
        ("store.password_file", &store.password_file),
        (ENCRYPTION_KEY, &store.encryption_key_file),
    ];
    let of_store = of_store
        .into_iter()
        .filter_map(|(key, file)| Some((key, file.as_deref()?)));
    proof
        .into_iter()
        .flatten()
        .chain(token)
        .chain(of_store)
        .collect()
}

/// Returns an error with advice for each secret that cannot be read.
pub(super) fn unreadable_secrets(config: &Config) -> Vec<String> {
    let unreadable = |(key, file): (&str, &Path)| {
        let error = secret::read_secret(file).err()?;
        let hint = match key {
            REFRESH_TOKEN_KEY => "; `usage-proxy consent` writes it",
            _ => "",
        };
        Some(format!("{key}: {error}{hint}"))
    };
    secret_files(config)
        .into_iter()
        .filter_map(unreadable)
        .collect()
}

/// Returns the error if the file of the store's keys can be read, but has no keys.
pub(super) fn wrong_encryption_keys(config: &Config) -> Option<String> {
    let file = config.store.encryption_key_file.as_deref()?;
    match SealingKeys::read(file) {
        Err(error @ SealingKeyError::NotAKey { .. }) => Some(format!("{ENCRYPTION_KEY}: {error}")),
        Ok(_) | Err(SealingKeyError::Unreadable(_)) => None,
    }
}

/// Returns the error if the headers for the collector of traces cannot be read.
pub(super) fn unreadable_trace_headers(config: &Config) -> Option<String> {
    let error = traces::read_headers(trace_headers(config)?).err()?;
    Some(format!("tracing.headers_file: {error}"))
}

fn trace_headers(config: &Config) -> Option<&Path> {
    config.tracing.as_ref()?.headers_file.as_deref()
}

/// Returns the file of the store, if it has one.
pub(super) fn store_file(config: &Config) -> Option<&Path> {
    match &config.store.url {
        Some(StoreUrl::Sqlite(file)) => Some(file),
        Some(StoreUrl::Postgres(_)) | None => None,
    }
}

/// Returns warnings about the configuration and the files that it names.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let of_files = secret_files(config)
        .into_iter()
        // Anyone may read a certificate.
        .filter(|(key, _)| *key != "upstream.auth.client_certificate_file")
        .filter_map(|(key, file)| Some(format!("{key}: {}", secret::permissions_warning(file)?)));
    let of_keys = tls_tables(config).into_iter().filter_map(|(table, tls)| {
        let warning = secret::permissions_warning(&tls.key_file)?;
        Some(format!("{table}.key_file: {warning}"))
    });
    let of_headers = trace_headers(config)
        .and_then(secret::permissions_warning)
        .map(|warning| format!("tracing.headers_file: {warning}"));
    let of_store = store_file(config)
        .and_then(secret::permissions_warning)
        .map(|warning| format!("store.url: {warning}"));
    let warnings = config.warnings().into_iter();
    warnings
        .chain(of_files)
        .chain(of_keys)
        .chain(of_headers)
        .chain(of_store)
        .collect()
}

/// Finds every error of a file.
type FileCheck = fn(&Path) -> Result<(), ConfigErrors>;

/// Returns the configured files of tables, each with its key and its check.
pub(super) fn tables_files(
    config: &Config,
) -> impl Iterator<Item = (&'static str, &Path, FileCheck)> {
    let (callers, portfolio) = (&config.callers.file, &config.portfolio.file);
    let files: [(_, _, FileCheck); 2] = [
        ("callers.file", callers, auth::check_callers_file),
        (
            "portfolio.file",
            portfolio,
            portfolio_file::check_portfolio_file,
        ),
    ];
    let configured = files.into_iter();
    configured.filter_map(|(key, file, check)| Some((key, file.as_deref()?, check)))
}

/// Returns the configured TLS, each with its table.
pub(super) fn tls_tables(config: &Config) -> Vec<(&'static str, &TlsConfig)> {
    let tables = [
        ("server.tls", config.server.tls.as_ref()),
        ("admin.tls", config.admin.tls.as_ref()),
    ];
    let configured = tables.into_iter();
    configured
        .filter_map(|(table, tls)| Some((table, tls?)))
        .collect()
}

// === impl ConfigArgs ===

impl ConfigArgs {
    /// Returns the flag of the configuration file, to type after a command; empty without a file.
    pub(super) fn config_flag(&self) -> String {
        match &self.config {
            Some(file) => format!(" --config {}", shell::quote_path(file)),
            None => String::new(),
        }
    }

    pub(super) fn sources(&self) -> ConfigSources {
        let mut sources = ConfigSources::from_process();
        if let Some(file) = &self.config {
            sources = sources.with_file(file);
        }
        for (flag, key, value) in [
            ("--listen", "server.listen", &self.listen),
            ("--admin-listen", "admin.listen", &self.admin_listen),
        ] {
            if let Some(value) = value {
                sources = sources.with_flag(flag, key, value);
            }
        }
        for set in &self.set {
            let (key, value) = match set.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.to_owned())),
                None => (set.trim(), None),
            };
            sources.flags.push(ConfigFlag {
                flag: format!("--set {key}"),
                key: key.to_owned(),
                value,
            });
        }
        sources
    }
}

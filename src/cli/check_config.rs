//! `usage-proxy check-config`: every fault of the configuration, or what is in effect.

use super::{
    CliError,
    config_args::{
        ConfigArgs, store_file, tables_files, tls_tables, unreadable_secrets,
        unreadable_trace_headers, warnings, wrong_encryption_keys,
    },
    eprint_line, print_line,
};
use crate::{
    config::Config,
    server::tls::{self, TlsError},
    store::sqlite::{StoreFault, inspect},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy check-config --config usage-proxy.toml
  usage-proxy check-config --config usage-proxy.toml --set cache.fresh_for=5m

It reports all mistakes at once. The configuration in effect goes to standard output, each key with \
its source; warnings go to standard error. It works without the secrets: a client secret that \
systemd gives to the service (LoadCredential) is only warned of.

Environment:
  USAGE_PROXY__TABLE__KEY  any key of the configuration: USAGE_PROXY__CACHE__FRESH_FOR=5m";

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let config = Config::load(args.sources())?;
    let unchecked = check_tables_files(&config)?;
    if let Some(wrong) = wrong_encryption_keys(&config) {
        return Err(CliError::usage(wrong));
    }
    // They may live on the machine that serves, and not on the one that checks.
    let unreadable = unreadable_secrets(&config)
        .into_iter()
        .chain(unreadable_trace_headers(&config))
        .chain(unchecked)
        .chain(check_tls(&config)?)
        .chain(check_store(&config)?);
    for warning in warnings(&config).into_iter().chain(unreadable) {
        eprint_line(format_args!("warning: {warning}"));
    }
    print_line(config.effective().trim_end())
}

/// Names every fault of the callers file and of the portfolio file, or warns that they cannot be
/// looked at: they may live on the machine that serves.
fn check_tables_files(config: &Config) -> Result<Vec<String>, CliError> {
    let (mut unchecked, mut faults) = (Vec::new(), Vec::new());
    for (key, file, check) in tables_files(config) {
        if !file.exists() {
            let file = file.display();
            unchecked.push(format!("{key}: there is no {file}, so it was not checked"));
        } else if let Err(errors) = check(file) {
            faults.push(errors.to_string());
        }
    }
    if faults.is_empty() {
        Ok(unchecked)
    } else {
        Err(CliError::usage(faults.join("\n")))
    }
}

/// Names what is wrong with the files of TLS, or warns of those that cannot be read: they may live
/// on the machine that serves.
fn check_tls(config: &Config) -> Result<Vec<String>, CliError> {
    let (mut unreadable, mut faults) = (Vec::new(), Vec::new());
    for (table, files) in tls_tables(config) {
        match tls::check_files(files) {
            Ok(_ends_at) => {}
            Err(error @ (TlsError::Unreadable { .. } | TlsError::Key(_))) => {
                unreadable.push(format!("{table}: {error}"));
            }
            Err(error) => faults.push(format!("{table}: {error}")),
        }
    }
    if faults.is_empty() {
        Ok(unreadable)
    } else {
        Err(CliError::usage(faults.join("\n")))
    }
}

/// Names what the service refuses about the file of the store, or warns of what keeps it from being
/// used by this user and on this machine.
fn check_store(config: &Config) -> Result<Option<String>, CliError> {
    match store_file(config).map(inspect) {
        None | Some(Ok(_)) => Ok(None),
        Some(Err(fault @ StoreFault::Refused(_))) => Err(CliError::usage(fault)),
        Some(Err(fault)) => Ok(Some(fault.to_string())),
    }
}

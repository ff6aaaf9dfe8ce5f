//! The checks of the files that the configuration names: readable, well-formed, and private.

use std::path::Path;

use jiff::Timestamp;

use super::{
    super::{
        CliError,
        config_args::{ENCRYPTION_KEY, REFRESH_TOKEN_KEY, secret_files, tables_files, tls_tables},
    },
    report::{CheckFinding, DoctorReport},
};
use crate::{
    clock::SharedClock,
    config::{Config, secret},
    sealing::{SealingKeyError, SealingKeys},
    server::tls,
    text::error_chain,
};

/// Advice for a secret that only systemd passes to the service, as the Debian package does.
const LOAD_CREDENTIAL_HINT: &str = "if systemd passes it on (LoadCredential), run doctor as the last \
                           example of `usage-proxy doctor --help` does";

/// A certificate that expires sooner gets a note.
const EXPIRES_SOON_DAYS: i64 = 21;

pub(super) fn check(
    config: &Config,
    clock: &SharedClock,
    report: &mut DoctorReport,
) -> Result<(), CliError> {
    for (key, file) in secret_files(config) {
        report.add(secret_file_finding(key, file))?;
    }
    for (key, file, check) in tables_files(config) {
        let name = key.trim_end_matches(".file");
        report.add_configuration(match check(file) {
            Ok(()) => CheckFinding::right(name, format!("{} is valid", file.display())),
            Err(faults) => CheckFinding::wrong(name, faults.to_string()),
        })?;
    }
    for (table, files) in tls_tables(config) {
        report.add(match tls::check_files(files) {
            Ok(ends_at) => certificate_finding(table, ends_at, clock.wall_time()),
            Err(error) => CheckFinding::wrong(table, error_chain(&error)),
        })?;
        if let Some(warning) = secret::permissions_warning(&files.key_file) {
            report.add(CheckFinding::note(table, warning))?;
        }
    }
    Ok(())
}

fn secret_file_finding(key: &'static str, file: &Path) -> CheckFinding {
    let name = key.rsplit('.').next().unwrap_or(key);
    let name = name.trim_end_matches("_file").replace('_', " ");
    let is_secret = !name.contains("certificate");
    if key == ENCRYPTION_KEY
        && let Err(error @ SealingKeyError::NotAKey { .. }) = SealingKeys::read(file)
    {
        let hint = format!("{key} names it: a key a line, the same file for all replicas");
        return CheckFinding::wrong(&name, error.to_string()).hint(hint);
    }
    match (secret::read_secret(file), secret::permissions_warning(file)) {
        (Err(error), _) => {
            let hint = match key {
                REFRESH_TOKEN_KEY => format!("{key} names it; `usage-proxy consent` writes it"),
                _ => format!("{key} names it; {LOAD_CREDENTIAL_HINT}"),
            };
            CheckFinding::wrong(&name, error.to_string()).hint(hint)
        }
        (Ok(_), Some(warning)) if is_secret => CheckFinding::note(&name, warning),
        (Ok(_), _) => CheckFinding::right(&name, format!("{} can be read", file.display())),
    }
}

fn certificate_finding(table: &str, ends_at: Timestamp, now: Timestamp) -> CheckFinding {
    let left = ends_at.as_second() - now.as_second();
    let days = left / 86_400;
    if left <= 0 {
        return CheckFinding::wrong(table, format!("the certificate expired on {ends_at}"))
            .hint("replace it: the service reads the new one without a restart".to_owned());
    }
    let said = format!("the certificate is valid for {days} days");
    if days < EXPIRES_SOON_DAYS {
        CheckFinding::note(table, said)
    } else {
        CheckFinding::right(table, said)
    }
}

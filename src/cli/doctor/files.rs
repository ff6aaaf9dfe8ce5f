//! The files that configuration names: there, readable, well-formed, and for our eyes only.

use std::path::Path;

use jiff::Timestamp;

use super::{
    super::{
        Failure,
        configuration::{REFRESH_TOKEN, secret_files, tls_tables},
    },
    report::{Finding, Report},
};
use crate::{
    auth,
    clock::SharedClock,
    config::{Config, secret},
    server::tls,
};

/// What the unit of the Debian package does, and a shell knows nothing of.
const HANDED_OVER: &str = "where systemd hands it over (LoadCredential), run doctor as the last \
                           example of `usage-proxy doctor --help` does";

/// A certificate that ends sooner is worth a look.
const SOON_DAYS: i64 = 21;

pub(super) fn check(
    config: &Config,
    clock: &SharedClock,
    report: &mut Report,
) -> Result<(), Failure> {
    for (key, file) in secret_files(&config.upstream.auth) {
        report.add(secret_file(key, file))?;
    }
    if let Some(file) = &config.callers.file {
        report.add_configuration(callers_file(file))?;
    }
    for (table, files) in tls_tables(config) {
        report.add(match tls::check(files) {
            Ok(ends_at) => certificate(table, ends_at, clock.wall()),
            Err(error) => Finding::wrong(table, super::super::chain(&error)),
        })?;
        if let Some(warning) = secret::permissions_warning(&files.key_file) {
            report.add(Finding::note(table, warning))?;
        }
    }
    Ok(())
}

fn secret_file(key: &'static str, file: &Path) -> Finding {
    let name = key.rsplit('.').next().unwrap_or(key);
    let name = name.trim_end_matches("_file").replace('_', " ");
    let is_secret = !name.contains("certificate");
    match (secret::read_secret(file), secret::permissions_warning(file)) {
        (Err(error), _) => {
            let hint = match key {
                REFRESH_TOKEN => format!("{key} names it; `usage-proxy consent` writes it"),
                _ => format!("{key} names it; {HANDED_OVER}"),
            };
            Finding::wrong(&name, error.to_string()).hint(hint)
        }
        (Ok(_), Some(warning)) if is_secret => Finding::note(&name, warning),
        (Ok(_), _) => Finding::right(&name, format!("{} can be read", file.display())),
    }
}

fn callers_file(file: &Path) -> Finding {
    match auth::check(file) {
        Ok(()) => Finding::right("callers", format!("{} is in order", file.display())),
        Err(faults) => Finding::wrong("callers", faults.to_string()),
    }
}

fn certificate(table: &str, ends_at: Timestamp, now: Timestamp) -> Finding {
    let left = ends_at.as_second() - now.as_second();
    let days = left / 86_400;
    if left <= 0 {
        return Finding::wrong(table, format!("the certificate has ended, on {ends_at}"))
            .hint("put a new one in its place: it is taken over without a restart".to_owned());
    }
    let said = format!("the certificate is good for {days} days");
    if days < SOON_DAYS {
        Finding::note(table, said)
    } else {
        Finding::right(table, said)
    }
}

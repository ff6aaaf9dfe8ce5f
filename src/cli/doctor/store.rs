//! The check of the store: its file and its disk, or its server.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use bytesize::ByteSize;

use super::{
    super::{CliError, config_args::store_file, terminal::while_waiting},
    network::milliseconds,
    report::{CheckFinding, DoctorReport},
};
use crate::{
    clock::SharedClock,
    config::{Config, PostgresConfig, secret},
    store::{
        postgres,
        sqlite::{StoreFault, StoreInspection, inspect},
    },
};

const CHECK: &str = "store";

const NOTIFICATIONS: &str = "notifications";

/// Less free space gets a note.
const LITTLE_SPACE: u64 = 512 * 1024 * 1024;

/// A slower disk gets a note: each write of the store waits for it.
const SLOW_SYNC: Duration = Duration::from_millis(100);

/// Durable writes that are timed.
const SYNCS: usize = 5;

pub(super) async fn check(
    config: &Config,
    clock: &SharedClock,
    report: &mut DoctorReport,
) -> Result<(), CliError> {
    if let Some(database) = config.store.postgres() {
        return check_database(database, report).await;
    }
    let Some(path) = store_file(config) else {
        return Ok(());
    };
    let found = match inspect(path) {
        Ok(found) => found,
        Err(fault @ StoreFault::Refused(_)) => {
            return report.add_configuration(CheckFinding::wrong(CHECK, fault.to_string()));
        }
        Err(fault) => return report.add(CheckFinding::wrong(CHECK, fault.to_string())),
    };
    let sync_time = time_sync(&found.path, clock);
    report.add(CheckFinding::right(CHECK, described(&found, &sync_time)))?;
    if let Some(warning) = secret::permissions_warning(&found.path) {
        report.add(CheckFinding::note(CHECK, warning))?;
    }
    if let Some(free) = found.free_bytes.filter(|free| *free < LITTLE_SPACE) {
        let said = format!("only {} are free on its disk", ByteSize(free));
        let hint = "a full disk delays no answer, but what is fetched is not stored".to_owned();
        report.add(CheckFinding::note(CHECK, said).hint(hint))?;
    }
    if sync_time.is_ok_and(|time| time > SLOW_SYNC) {
        let said = "its disk is slow; answers do not wait for it, but a kill loses more of the last \
                    seconds";
        report.add(CheckFinding::note(CHECK, said))?;
    }
    Ok(())
}

async fn check_database(
    database: PostgresConfig,
    report: &mut DoctorReport,
) -> Result<(), CliError> {
    let checking = postgres::check(database.clone());
    match while_waiting("asking PostgreSQL", checking).await {
        Ok(said) => report.add(CheckFinding::right(CHECK, said))?,
        Err(problem) => {
            return report.add(CheckFinding::wrong(CHECK, problem.said).hint(problem.action));
        }
    }
    let has_listen_url = database.listen_url.is_some();
    let checking = postgres::check_notifications(database);
    let heard = while_waiting("waiting for a notification of PostgreSQL", checking).await;
    report.add(match heard {
        Ok(()) => CheckFinding::right(NOTIFICATIONS, "what other replicas do arrives at once"),
        Err(problem) if has_listen_url => {
            CheckFinding::wrong(NOTIFICATIONS, problem.said).hint(problem.action)
        }
        // Without them, replicas look each second.
        Err(problem) => CheckFinding::note(NOTIFICATIONS, problem.said).hint(problem.action),
    })
}

fn described(found: &StoreInspection, sync_time: &io::Result<Duration>) -> String {
    let size = match found.stored_bytes {
        Some(bytes) => format!("has {}", ByteSize(bytes)),
        None => "will be made".to_owned(),
    };
    let mut said = format!("{} {size}", found.path.display());
    if let Some(process) = found.opened_by {
        said += &format!(", {process} has it open");
    }
    if let Some(free) = found.free_bytes {
        said += &format!(", {} are free", ByteSize(free));
    }
    if let Ok(time) = sync_time {
        said += &format!(", a durable write takes {}", milliseconds(*time));
    }
    said
}

/// Returns the median time of durable writes to the disk of a file.
fn time_sync(path: &Path, clock: &SharedClock) -> io::Result<Duration> {
    // Without a name, so that nothing is left behind.
    let mut file = tempfile::tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = clock.now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(clock.now() - started);
    }
    times.sort_unstable();
    Ok(times.get(SYNCS / 2).copied().unwrap_or_default())
}

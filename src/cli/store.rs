//! `usage-proxy store copy`: copies a store, such as from SQLite to PostgreSQL.

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use clap::{Args, Subcommand};

use super::{
    CliError, eprint_line, print_line, progress::ProgressDisplay, signals::exit_code_on_signal,
};
use crate::{
    clock::SystemClock,
    config::{PostgresConfig, StoreUrl},
    store::copy::{CopyError, CopyProgress, CopySide, CopySummary, StorePlace, copy},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy store copy --from sqlite:/var/lib/usage-proxy/usage.db \\
      --to 'postgres://usage_proxy@db.example.com/usage?sslmode=verify-full' \\
      --to-password-file /etc/usage-proxy/store-password";

pub(super) const COPY_EXAMPLES: &str = "\
Examples:
  usage-proxy store copy --from sqlite:/var/lib/usage-proxy/usage.db \\
      --to 'postgres://usage_proxy@db.example.com/usage?sslmode=verify-full' \\
      --to-password-file /etc/usage-proxy/store-password
  usage-proxy store copy --from postgres://usage_proxy@127.0.0.1/usage \\
      --from-password-file /etc/usage-proxy/store-password --to sqlite:usage.db

It copies all that is stored: every date with all its revisions, native bodies, the list of customers, \
and the effect of purges. Both stores may be in use. What the target has and is newer stays.

A copy that was stopped continues when the same command runs again, and one that is complete copies \
only what came since.

Exit codes:
  0    everything of the source is in the target
  1    a store cannot be reached, read or written; what was copied stays
  2    wrong use, or a store that must not be used
  130  stopped by Ctrl-C; what was copied stays";

/// Commands about the store.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Copy a store into another one, such as from SQLite to PostgreSQL or back.
    #[command(after_help = COPY_EXAMPLES)]
    Copy(CopyArgs),
}

/// Options of `store copy`.
#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// The store to read: sqlite:PATH, or postgres://USER@HOST/DATABASE?sslmode=verify-full.
    #[arg(long, value_name = "URL")]
    from: String,
    /// The store to write, which is created if it is missing.
    #[arg(long, value_name = "URL")]
    to: String,
    /// File with the password for --from.
    #[arg(long, value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// File with the password for --to.
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// File with the CAs for --from; without it, those of the system.
    #[arg(long, value_name = "FILE")]
    from_ca_file: Option<PathBuf>,
    /// File with the CAs for --to; without it, those of the system.
    #[arg(long, value_name = "FILE")]
    to_ca_file: Option<PathBuf>,
}

/// The time between two looks at the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Time to finish the part that is being written, after a signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn run(command: &StoreCommand) -> Result<(), CliError> {
    match command {
        StoreCommand::Copy(args) => run_copy(args).await,
    }
}

async fn run_copy(args: &CopyArgs) -> Result<(), CliError> {
    let source = place(
        CopySide::Source,
        &args.from,
        args.from_password_file.as_ref(),
        args.from_ca_file.as_ref(),
    )?;
    let target = place(
        CopySide::Target,
        &args.to,
        args.to_password_file.as_ref(),
        args.to_ca_file.as_ref(),
    )?;
    let mut signalled = pin!(exit_code_on_signal()?);
    let progress = Arc::new(CopyProgress::default());
    let mut copying = pin!(copy(
        source,
        target,
        Arc::new(SystemClock),
        Arc::clone(&progress)
    ));
    let mut display = ProgressDisplay::new("snapshots");
    let mut look = tokio::time::interval(POLL_INTERVAL);
    loop {
        tokio::select! {
            done = &mut copying => {
                display.finish();
                return finish(done);
            }
            code = &mut signalled => {
                progress.stop();
                // A part that was not written whole is not written at all.
                let _ended = tokio::time::timeout(STOP_TIMEOUT, &mut copying).await.is_ok();
                display.finish();
                eprint_line(format_args!(
                    "stopped; {}; run the same command again to continue",
                    progress.summary()
                ));
                return Err(CliError::AlreadyReported(code));
            }
            _ = look.tick() => show(&mut display, &progress.summary()),
        }
    }
}

fn finish(done: Result<CopySummary, CopyError>) -> Result<(), CliError> {
    match done {
        Ok(summary) => print_line(summary),
        Err(CopyError::SameStore) => Err(CliError::usage("--from and --to are the same store")),
        Err(CopyError::Refused { side, problem }) => {
            Err(CliError::usage(in_terms_of_flags(side, &problem)))
        }
        Err(CopyError::Failed { side, problem }) => Err(CliError::other(format!(
            "{}; run the same command again to continue",
            in_terms_of_flags(side, &problem)
        ))),
        Err(error @ CopyError::Stopped) => Err(CliError::other(error)),
    }
}

fn show(display: &mut ProgressDisplay, summary: &CopySummary) {
    /// Lines in a pipe.
    const LINES: u64 = 20;

    if summary.total == 0 {
        return;
    }
    let done = (summary.snapshots + summary.unchanged).min(summary.total);
    let pace = display.pace(summary.snapshots, summary.total - done);
    let rows = display.pace(summary.rows, 0);
    let pace = match (pace, rows) {
        (Some(pace), Some(rows)) => {
            format!(
                ", {:.0} rows a second, about {} left",
                rows.per_second, pace.left
            )
        }
        _ => String::new(),
    };
    let interval = (summary.total / LINES).max(1);
    display.show(done, summary.total, interval, &pace, || summary.to_string());
}

/// Returns the place that a flag names.
fn place(
    side: CopySide,
    url: &str,
    password_file: Option<&PathBuf>,
    ca_file: Option<&PathBuf>,
) -> Result<StorePlace, CliError> {
    let url = StoreUrl::parse(url);
    let url = url.map_err(|problem| {
        CliError::usage(in_terms_of_flags(side, &format!("the URL {problem}")))
    })?;
    match url {
        StoreUrl::Sqlite(_) if password_file.is_some() || ca_file.is_some() => {
            let problem = "store.password_file and store.ca_file are for a `postgres://` URL";
            Err(CliError::usage(in_terms_of_flags(side, problem)))
        }
        StoreUrl::Sqlite(path) => Ok(StorePlace::Sqlite(path)),
        StoreUrl::Postgres(url) => Ok(StorePlace::Postgres(Box::new(PostgresConfig {
            url: *url,
            listen_url: None,
            password_file: password_file.cloned(),
            ca_file: ca_file.cloned(),
        }))),
    }
}

/// Names the flags of a side in place of the keys of the configuration.
fn in_terms_of_flags(side: CopySide, problem: &str) -> String {
    let flag = match side {
        CopySide::Source => "--from",
        CopySide::Target => "--to",
    };
    let problem = problem
        .trim_start_matches("store.url: ")
        .replace("store.password_file", &format!("{flag}-password-file"))
        .replace("store.ca_file", &format!("{flag}-ca-file"))
        .replace("store.url", flag);
    format!("{flag}: {problem}")
}

//! `usage-proxy backfill`: fetches past dates into the store, through the running service.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::PathBuf,
    pin::{Pin, pin},
    time::Duration,
};

use clap::Args;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Deserialize;

use super::{
    CliError,
    admin_listener::{
        TIMEOUT, error_reason, find_service, is_connection_refused, local_url, printable,
    },
    config_args::{ConfigArgs, store_file},
    eprint_line, print_line,
    progress::ProgressDisplay,
    signals::exit_code_on_signal,
};
use crate::{
    app::{App, AppDeps},
    clock::{Clock as _, SystemClock},
    config::{Config, secret},
    domain::{CustomerId, ProcessedDate},
    http_client,
    observability::telemetry,
    service::BackfillRequest,
    store::{
        DateRange,
        sqlite::{StoreFault, inspect},
    },
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy backfill --config usage-proxy.toml --from 2026-01-01 --to 2026-11-25
  usage-proxy backfill --config usage-proxy.toml --from 2026-01-01 --to 2026-11-25 \\
      --customer 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04

Each date is one call for all customers, the newest first. Dates that are stored are skipped, so a \
backfill that was stopped continues where it ended. Partner Center keeps 13 months. A date whose \
answers are wrong is left out after three attempts; other failures are tried up to ten times.

The running service makes the calls, found by admin.listen of the same configuration. Only if nothing \
listens there, and no process has the store open, does this command make them itself.

Environment:
  USAGE_PROXY_KEY_FILE  instead of --key-file

Exit codes:
  0    every date is stored or has no data
  1    dates failed, or the service refuses; the dates that were fetched are stored
  2    wrong use or configuration
  130  stopped by Ctrl-C; the dates that were fetched are stored";

/// Options of `backfill`.
#[derive(Debug, Args)]
pub(super) struct BackfillArgs {
    /// The first date (YYYY-MM-DD).
    #[arg(long, value_name = "DATE", value_parser = ProcessedDate::parse)]
    from: ProcessedDate,
    /// The last date.
    #[arg(long, value_name = "DATE", value_parser = ProcessedDate::parse)]
    to: ProcessedDate,
    /// Only this customer, by its GUID; without it, all customers together.
    #[arg(long, value_name = "CUSTOMER", value_parser = CustomerId::parse)]
    customer: Option<CustomerId>,
    /// File with a key of the admin listener, if it has keys.
    #[arg(long, value_name = "FILE", env = "USAGE_PROXY_KEY_FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// `/backfill` of the admin listener.
#[derive(Debug)]
struct BackfillClient {
    http: reqwest::Client,
    url: String,
    authorization: Option<HeaderValue>,
}

/// The body of `/backfill`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BackfillReply {
    state: String,
    #[serde(default)]
    dates: u64,
    #[serde(default)]
    skipped: u64,
    #[serde(default)]
    fetched: u64,
    #[serde(default)]
    without_data: u64,
    retried: Option<FailedDateReply>,
    #[serde(default)]
    failed: Vec<FailedDateReply>,
    error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailedDateReply {
    processed_date: String,
    attempts: u32,
    error: String,
}

/// Shows the progress, and each failed date once.
struct BackfillDisplay {
    progress: ProgressDisplay,
    failures: HashSet<FailedDateReply>,
}

/// The time between two looks at the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

pub(super) async fn run(args: &BackfillArgs) -> Result<(), CliError> {
    let today = ProcessedDate::from_timestamp(SystemClock.wall_time());
    let range = DateRange {
        from: args.from,
        to: args.to,
    };
    BackfillRequest::new(range, args.customer, today).map_err(CliError::usage)?;
    let mut config = Config::load(args.config.sources())?;
    if config.store.url.is_none() {
        return Err(CliError::usage(
            "store.url is not set: there is nowhere to put past dates; set it to sqlite:PATH or postgres://…",
        ));
    }
    let client = BackfillClient::new(&config, args.key_file.as_ref())?;
    // From here on, a signal must stop what was started.
    let signalled = pin!(exit_code_on_signal()?);
    match find_service(&config).await {
        Ok(Some(_)) => start_and_follow(&client, args, signalled).await,
        Ok(None) => {
            check_store_is_free(&config)?;
            eprint_line(format_args!(
                "no service listens on {}, so this command fetches the dates itself",
                config.admin.listen
            ));
            run_alone(&mut config, args, signalled).await
        }
        Err(reason) => Err(CliError::other(format!(
            "nothing was started, because the service may be running: {}; give the service's own admin \
             listener with --admin-listen, or stop what listens there",
            printable(&reason)
        ))),
    }
}

/// Checks that the store can be used, and that no service uses it that listens elsewhere.
fn check_store_is_free(config: &Config) -> Result<(), CliError> {
    let Some(file) = store_file(config) else {
        return Ok(());
    };
    let found = inspect(file).map_err(|fault| match fault {
        StoreFault::Refused(_) => CliError::usage(fault),
        StoreFault::Unusable { .. } => CliError::other(fault),
    })?;
    match found.opened_by {
        None => Ok(()),
        Some(process) => Err(CliError::other(format!(
            "nothing was started, because {process} has {} open, and nothing listens on {}; if it \
             is the service, give its own admin listener with --admin-listen, else end it",
            found.path.display(),
            config.admin.listen
        ))),
    }
}

/// Starts the service for this backfill alone: on free ports of the loopback, without other work.
async fn run_alone(
    config: &mut Config,
    args: &BackfillArgs,
    signalled: Pin<&mut impl Future<Output = u8>>,
) -> Result<(), CliError> {
    // Failed dates are in the progress, and other lines would break the bar.
    config.log.filter = "off".to_owned();
    let log = telemetry::start_logging(&config.log).map_err(CliError::usage)?;
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.listen = any_port;
    config.server.tls = None;
    config.admin.listen = any_port;
    config.admin.tls = None;
    config.admin.key_sha256.clear();
    config.fleet.refresh = Some(false);
    let deps = AppDeps {
        dropped_log_lines: log.dropped_lines(),
        ..AppDeps::default()
    };
    let app = App::build(config, deps).await?;
    config.admin.listen = app.admin_address();
    let client = BackfillClient::new(config, None)?;
    let shutdown = app.shutdown();
    let work = async {
        let done = start_and_follow(&client, args, signalled).await;
        shutdown.drain();
        done
    };
    let (done, ()) = tokio::join!(work, app.run());
    done
}

/// Starts a backfill, shows its progress until it ends, and stops it at a signal.
async fn start_and_follow(
    client: &BackfillClient,
    args: &BackfillArgs,
    mut signalled: Pin<&mut impl Future<Output = u8>>,
) -> Result<(), CliError> {
    client.start(args).await?;
    let mut display = BackfillDisplay::new();
    loop {
        let reply = tokio::select! {
            reply = client.progress() => reply?,
            code = &mut signalled => {
                let stopped = client.request(Method::DELETE, &[]).await?;
                display.finish();
                eprint_line(format_args!("stopped; {}", stopped.summary()));
                return Err(CliError::AlreadyReported(code));
            }
        };
        display.show(&reply);
        match &*reply.state {
            "running" => tokio::time::sleep(POLL_INTERVAL).await,
            "done" => {
                display.finish();
                return print_line(reply.summary());
            }
            _ => {
                display.finish();
                return Err(reply.into_error());
            }
        }
    }
}

// === impl BackfillClient ===

impl BackfillClient {
    fn new(config: &Config, key_file: Option<&PathBuf>) -> Result<Self, CliError> {
        let key = key_file.map(|file| secret::read_secret(file)).transpose();
        let key = key.map_err(|error| CliError::usage(format!("--key-file: {error}")))?;
        let authorization = key.as_ref().map(http_client::bearer).transpose();
        let authorization = authorization
            .map_err(|_| CliError::usage("--key-file: expected visible characters on one line"))?;
        // As for probes: the address is our own configuration's.
        let http = http_client::builder()
            .user_agent(concat!("usage-proxy-backfill/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .tls_danger_accept_invalid_certs(true)
            .build()
            .map_err(|error| CliError::other(error_reason(error)))?;
        Ok(Self {
            http,
            url: format!("{}/backfill", local_url(&config.admin)),
            authorization,
        })
    }

    async fn start(&self, args: &BackfillArgs) -> Result<(), CliError> {
        let mut query = vec![("from", args.from.to_string()), ("to", args.to.to_string())];
        query.extend(
            args.customer
                .map(|customer| ("customer", customer.to_string())),
        );
        self.request(Method::POST, &query).await.map(drop)
    }

    async fn progress(&self) -> Result<BackfillReply, CliError> {
        self.request(Method::GET, &[]).await
    }

    async fn request(
        &self,
        method: Method,
        query: &[(&str, String)],
    ) -> Result<BackfillReply, CliError> {
        let mut request = self.http.request(method, &self.url).query(query);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(|error| self.failure(error))?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| self.failure(error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                CliError::other(format!(
                    "{}: not an answer of a usage-proxy: {error}",
                    self.url
                ))
            });
        }
        Err(refusal(status, &body))
    }

    fn failure(&self, error: reqwest::Error) -> CliError {
        if is_connection_refused(&error) {
            return CliError::other("the service ended; run the same command again to continue");
        }
        CliError::other(format!(
            "{}: {}; a backfill that was started continues in the service, and GET shows its progress",
            self.url,
            error_reason(error)
        ))
    }
}

/// Returns the reason of a refusal, and advice.
fn refusal(status: StatusCode, body: &[u8]) -> CliError {
    #[derive(Deserialize)]
    struct ProblemReply {
        detail: String,
    }
    let detail = serde_json::from_slice(body).map_or_else(
        |_| format!("the admin listener answers {status}; is the service of this version?"),
        |problem: ProblemReply| printable(&problem.detail),
    );
    match status {
        StatusCode::BAD_REQUEST => CliError::usage(detail),
        StatusCode::UNAUTHORIZED => {
            CliError::other(format!("{detail}; --key-file names a file with the key"))
        }
        _ => CliError::other(detail),
    }
}

// === impl BackfillReply ===

impl BackfillReply {
    fn completed(&self) -> u64 {
        self.skipped + self.fetched + self.without_data
    }

    fn summary(&self) -> String {
        let failed = match self.failed.len() {
            0 => String::new(),
            count => format!(", {count} failed"),
        };
        format!(
            "{} of {} dates: {} fetched, {} stored before, {} without data{failed}",
            self.completed(),
            self.dates,
            self.fetched,
            self.skipped,
            self.without_data
        )
    }

    /// Returns the error of a backfill that has not fetched every date.
    fn into_error(self) -> CliError {
        let reason = self.error.as_deref().map(printable);
        let reason = reason.map_or_else(String::new, |reason| format!("{reason}; "));
        CliError::other(format!(
            "{}: {reason}{}; run the same command again to fetch what is missing",
            printable(&self.state),
            self.summary()
        ))
    }
}

// === impl BackfillDisplay ===

impl BackfillDisplay {
    /// A line in a pipe for so many dates.
    const LINE_INTERVAL: u64 = 10;

    fn new() -> Self {
        Self {
            progress: ProgressDisplay::new("dates"),
            failures: HashSet::new(),
        }
    }

    fn show(&mut self, reply: &BackfillReply) {
        self.show_failures(reply);
        let completed = reply.completed();
        // What was stored before took no time.
        let pace = self.progress.pace(
            reply.fetched + reply.without_data,
            reply.dates.saturating_sub(completed),
        );
        let pace = pace.map_or_else(String::new, |pace| {
            format!(
                ", {:.0} a minute, about {} left",
                pace.per_second * 60.0,
                pace.left
            )
        });
        self.progress
            .show(completed, reply.dates, Self::LINE_INTERVAL, &pace, || {
                reply.summary()
            });
    }

    /// Prints each failure once.
    fn show_failures(&mut self, reply: &BackfillReply) {
        let retried = reply.retried.iter().map(|date| (date, "is tried again"));
        let failed = reply.failed.iter().map(|date| (date, "failed"));
        for (date, outcome) in failed.chain(retried) {
            if !self.failures.insert(date.clone()) {
                continue;
            }
            self.progress.print_line(format_args!(
                "{} {outcome} after attempt {}: {}",
                printable(&date.processed_date),
                date.attempts,
                printable(&date.error)
            ));
        }
    }

    fn finish(&self) {
        self.progress.finish();
    }
}

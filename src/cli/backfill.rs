//! `usage-proxy backfill`: fetches past dates into the store, through the running service.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use http::{HeaderValue, Method, StatusCode, header};
use indicatif::{HumanDuration, ProgressBar, ProgressFinish, ProgressStyle};
use serde::Deserialize;

use super::{
    CliError,
    admin_listener::{error_reason, local_url, printable},
    config_args::ConfigArgs,
    eprint_line, print_line,
    signals::exit_code_on_signal,
    terminal::TerminalStyle,
};
use crate::{
    app::{App, AppDeps},
    config::{Config, secret},
    domain::{CustomerId, ProcessedDate},
    http_client,
    observability::telemetry,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy backfill --config usage-proxy.toml --from 2026-01-01 --to 2026-11-25
  usage-proxy backfill --config usage-proxy.toml --from 2026-01-01 --to 2026-11-25 \\
      --customer 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04

Each date is one call for all customers, the newest first. Dates that are stored are skipped, so a \
backfill that was stopped continues where it ended. Partner Center keeps 13 months.

The running service makes the calls, found by admin.listen of the same configuration. Only if nothing \
listens there does this command make them itself.

Environment:
  USAGE_PROXY_KEY_FILE  instead of --key-file

Exit codes:
  0    every date is stored or has no data
  1    the service refuses, or calls fail; the dates that were fetched are stored
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
    error: Option<String>,
}

/// A request that was not accepted.
enum RequestError {
    /// Nothing listens at the address.
    NotListening,
    Other(String),
}

/// Shows the progress on standard error: a bar on a terminal, lines elsewhere.
struct ProgressDisplay {
    bar: Option<ProgressBar>,
    started: std::time::Instant,
    last_line: u64,
}

/// The time between two looks at the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The longest time for a request.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(args: &BackfillArgs) -> Result<(), CliError> {
    let mut config = Config::load(args.config.sources())?;
    if config.store.url.is_none() {
        return Err(CliError::usage(
            "store.url is not set: there is nowhere to put past dates; set it to sqlite:PATH",
        ));
    }
    let client = BackfillClient::new(&config, args.key_file.as_ref())?;
    match client.start(args).await {
        Ok(()) => follow(&client).await,
        Err(RequestError::Other(reason)) => Err(CliError::other(reason)),
        Err(RequestError::NotListening) => {
            eprint_line(format_args!(
                "no service listens on {}, so this command fetches the dates itself",
                config.admin.listen
            ));
            run_alone(&mut config, args).await
        }
    }
}

/// Starts the service for this backfill alone: on free ports of the loopback, without other work.
async fn run_alone(config: &mut Config, args: &BackfillArgs) -> Result<(), CliError> {
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
        let started = client.start(args).await;
        let done = match started {
            Ok(()) => follow(&client).await,
            Err(RequestError::Other(reason)) => Err(CliError::other(reason)),
            Err(RequestError::NotListening) => Err(CliError::other("it does not listen itself")),
        };
        shutdown.drain();
        done
    };
    let (done, ()) = tokio::join!(work, app.run());
    done
}

/// Shows the progress until the backfill ends, and stops it at a signal.
async fn follow(client: &BackfillClient) -> Result<(), CliError> {
    let mut display = ProgressDisplay::new();
    let mut signalled = std::pin::pin!(exit_code_on_signal()?);
    loop {
        let reply = tokio::select! {
            reply = client.progress() => reply,
            code = &mut signalled => {
                let stopped = client.request(Method::DELETE, &[]).await;
                display.finish();
                return Err(match stopped {
                    Ok(reply) => {
                        eprint_line(format_args!("stopped; {}", reply.summary()));
                        CliError::AlreadyReported(code)
                    }
                    Err(error) => CliError::other(error.reason()),
                });
            }
        };
        let reply = reply.map_err(|error| CliError::other(error.reason()))?;
        display.show(&reply);
        match (&*reply.state, &reply.error) {
            ("running", _) => tokio::time::sleep(POLL_INTERVAL).await,
            ("done", _) => {
                display.finish();
                return print_line(reply.summary());
            }
            (state, error) => {
                display.finish();
                let reason = error.as_deref().unwrap_or("no reason was given");
                let summary = reply.summary();
                return Err(CliError::other(format!(
                    "{state}: {}; {summary}",
                    printable(reason)
                )));
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

    async fn start(&self, args: &BackfillArgs) -> Result<(), RequestError> {
        let mut query = vec![("from", args.from.to_string()), ("to", args.to.to_string())];
        query.extend(
            args.customer
                .map(|customer| ("customer", customer.to_string())),
        );
        self.request(Method::POST, &query).await.map(drop)
    }

    async fn progress(&self) -> Result<BackfillReply, RequestError> {
        self.request(Method::GET, &[]).await
    }

    async fn request(
        &self,
        method: Method,
        query: &[(&str, String)],
    ) -> Result<BackfillReply, RequestError> {
        let mut request = self.http.request(method, &self.url).query(query);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                RequestError::NotListening
            } else {
                RequestError::Other(format!("{}: {}", self.url, error_reason(error)))
            }
        })?;
        let status = response.status();
        let body = response.bytes().await;
        let body = body.map_err(|error| RequestError::Other(error_reason(error)))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                RequestError::Other(format!("not an answer of a usage-proxy: {error}"))
            });
        }
        Err(RequestError::Other(refusal(status, &body)))
    }
}

/// Returns the reason of a refusal, and advice.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ProblemReply {
        detail: String,
    }
    let detail = serde_json::from_slice(body).map_or_else(
        |_| format!("the admin listener answers {status}"),
        |problem: ProblemReply| printable(&problem.detail),
    );
    match status {
        StatusCode::UNAUTHORIZED => format!("{detail}; --key-file names a file with the key"),
        _ => detail,
    }
}

// === impl RequestError ===

impl RequestError {
    fn reason(self) -> String {
        match self {
            Self::NotListening => {
                "the service ended; run the same command again to continue".to_owned()
            }
            Self::Other(reason) => reason,
        }
    }
}

// === impl BackfillReply ===

impl BackfillReply {
    fn completed(&self) -> u64 {
        self.skipped + self.fetched + self.without_data
    }

    fn summary(&self) -> String {
        format!(
            "{} of {} dates: {} fetched, {} stored before, {} without data",
            self.completed(),
            self.dates,
            self.fetched,
            self.skipped,
            self.without_data
        )
    }
}

// === impl ProgressDisplay ===

impl ProgressDisplay {
    /// A line in a pipe for so many dates.
    const LINE_INTERVAL: u64 = 10;

    #[expect(clippy::disallowed_methods, reason = "the time of a person who waits")]
    fn new() -> Self {
        let bar = TerminalStyle::of_stderr().is_terminal.then(|| {
            let bar = ProgressBar::new(0).with_finish(ProgressFinish::AndClear);
            let template = "{wide_bar} {pos}/{len} dates, {per_sec}, {eta} left {msg}";
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            started: std::time::Instant::now(),
            last_line: 0,
        }
    }

    fn show(&mut self, reply: &BackfillReply) {
        let completed = reply.completed();
        if let Some(bar) = &self.bar {
            bar.set_length(reply.dates);
            if bar.position() == 0 {
                // What was stored before took no time.
                bar.reset_eta();
            }
            bar.set_position(completed);
            bar.set_message(reply.error.as_deref().map_or_else(String::new, printable));
            return;
        }
        if completed < self.last_line + Self::LINE_INTERVAL {
            return;
        }
        self.last_line = completed;
        let elapsed = self.started.elapsed();
        let asked = u32::try_from(reply.fetched + reply.without_data).unwrap_or(u32::MAX);
        let left = u32::try_from(reply.dates.saturating_sub(completed)).unwrap_or(u32::MAX);
        let each = elapsed.checked_div(asked).unwrap_or_default();
        eprint_line(format_args!(
            "{}, about {} left",
            reply.summary(),
            HumanDuration(each.saturating_mul(left))
        ));
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

//! `usage-proxy demo`: the service and the stand-in for Partner Center in one process.

use std::{
    fs::File,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use clap::Args;
use jiff::Timestamp;
use tempfile::TempDir;

use super::{
    CliError, address, print_line, serve::is_interactive, shell, signals::drain_on_signal,
};
use crate::{
    app::{App, AppDeps, AppStartError},
    config::{Config, ConfigSources, is_loopback_address},
    domain::ProcessedDate,
    observability::telemetry,
    server::BindError,
    service::BackfillRequest,
    simulator::{
        DOCUMENTED_CUSTOMER, DOCUMENTED_DATE, Publication, Simulator, SimulatorOptions, customer_id,
    },
    store::DateRange,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy demo
  usage-proxy demo --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0    on free ports

It prints what to try. In a pipe, a line of JSON on standard error has the addresses. It reads no \
configuration. Its data is made up, so --listen may be an address that others can reach, which a \
container needs.";

/// Files of the secrets.
const CLIENT_SECRET: &str = "client-secret";
const REFRESH_TOKEN: &str = "refresh-token";

/// Addresses of the demo.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Address of the API listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// Address of the admin listener, on this machine.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = loopback)]
    admin_listen: SocketAddr,
}

/// Runs the stand-in and the service in front of it, and prints what to try.
pub(super) async fn run(args: &DemoArgs) -> Result<(), CliError> {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = SimulatorOptions {
        publication: Publication::Daily,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::bind(anywhere, options)
        .await
        .map_err(CliError::other)?;
    let secrets =
        write_secrets(&simulator.handle().issue_refresh_token()).map_err(CliError::other)?;
    let config = Config::load(sources(args, simulator.local_addr(), secrets.path()))?;
    let log = telemetry::start_logging(&config.log).map_err(CliError::usage)?;
    let deps = AppDeps {
        dropped_log_lines: log.dropped_lines(),
        ..AppDeps::default()
    };
    let clock = Arc::clone(&deps.clock);
    let app = App::build(&config, deps)
        .await
        .map_err(listen_error_with_flag)?;
    let shutdown = app.shutdown();
    drain_on_signal(shutdown.clone())?;
    shutdown.spawn(simulator.run(shutdown.clone()));
    app.start_backfill(history_before(clock.wall_time()))
        .map_err(CliError::other)?;
    let (api, admin) = (app.api_address(), app.admin_address());
    print_line(startup_message(api, admin))?;
    if !is_interactive() {
        tracing::info!(%api, %admin, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    app.run().await;
    tracing::info!("ended");
    Ok(())
}

/// Returns the dates that the demo's charts show.
fn history_before(now: Timestamp) -> BackfillRequest {
    const MONTHS: i32 = 4;

    let today = ProcessedDate::from_timestamp(now);
    BackfillRequest {
        range: DateRange {
            from: today.months_before(MONTHS),
            to: today,
        },
        customer: None,
    }
}

/// Names the flag of an address that cannot be used: the demo has no configuration keys.
fn listen_error_with_flag(error: AppStartError) -> CliError {
    match error {
        AppStartError::Bind(BindError {
            key,
            address,
            reason,
        }) => {
            let flag = match key {
                "admin.listen" => "--admin-listen",
                _ => "--listen",
            };
            CliError::other(format!("{flag} {address} cannot be listened on: {reason}"))
        }
        other => other.into(),
    }
}

/// Writes the secrets of the stand-in's account into a folder that is removed when the demo ends. The
/// store is there too.
fn write_secrets(refresh_token: &str) -> io::Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("usage-proxy-demo-")
        .tempdir()?;
    for (name, secret) in [
        (CLIENT_SECRET, "the stand-in accepts any"),
        (REFRESH_TOKEN, refresh_token),
    ] {
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.path().join(name))?
            .write_all(secret.as_bytes())?;
    }
    Ok(folder)
}

/// Configures the demo like any deployment, but without the environment, so that it runs the same
/// everywhere.
fn sources(args: &DemoArgs, upstream: SocketAddr, secrets: &Path) -> ConfigSources {
    let path = |name| secrets.join(name).to_string_lossy().into_owned();
    [
        ("--listen", "server.listen", args.listen.to_string()),
        (
            "--admin-listen",
            "admin.listen",
            args.admin_listen.to_string(),
        ),
        // The data is made up, so anybody may read it.
        ("demo", "callers.anonymous", "true".to_owned()),
        // One call for all customers fills the overview.
        ("demo", "upstream.source", "commercial".to_owned()),
        ("demo", "store.url", format!("sqlite:{}", path("usage.db"))),
        // The calls for past dates would scroll the addresses away.
        (
            "demo",
            "log.filter",
            "info,usage_proxy::partner_center::call=warn".to_owned(),
        ),
        ("demo", "upstream.base_url", format!("http://{upstream}")),
        ("demo", "upstream.auth.kind", "refresh_token".to_owned()),
        (
            "demo",
            "upstream.auth.token_url",
            format!("http://{upstream}/demo/oauth2/v2.0/token"),
        ),
        (
            "demo",
            "upstream.auth.client_id",
            "usage-proxy-demo".to_owned(),
        ),
        (
            "demo",
            "upstream.auth.client_secret_file",
            path(CLIENT_SECRET),
        ),
        (
            "demo",
            "upstream.auth.refresh_token_file",
            path(REFRESH_TOKEN),
        ),
    ]
    .into_iter()
    .fold(ConfigSources::default(), |sources, (flag, key, value)| {
        sources.with_flag(flag, key, value)
    })
}

/// Reads an address that only this machine can reach from a flag.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = address(text)?;
    if is_loopback_address(address) {
        Ok(address)
    } else {
        Err(
            "others could reach it without a key; expected an address such as 127.0.0.1:9090"
                .into(),
        )
    }
}

fn startup_message(api: SocketAddr, admin: SocketAddr) -> String {
    // The only one with "zubr" in its name.
    let customer = customer_id(SimulatorOptions::default().seed, 3);
    format!(
        "usage-proxy {version}, in front of a simulated Partner Center. Look at its page:

  http://{api}/

Or ask for a customer:

  {program} get zubr --url http://{api}
  curl -s http://{api}/v1/customers/{customer}/usage
  curl -s http://{admin}/cache

Compare the example in Microsoft's documentation:

  curl -s http://{api}/v1/customers/{DOCUMENTED_CUSTOMER}/usage
  curl -si -H 'Accept: text/csv' 'http://{api}/v1/customers/{DOCUMENTED_CUSTOMER}/usage?processedDate={DOCUMENTED_DATE}'

API http://{api}, admin http://{admin} (/metrics, /healthz, /readyz, /cache). Ctrl-C ends it.
",
        version = env!("CARGO_PKG_VERSION"),
        program = shell::program_name(),
    )
}

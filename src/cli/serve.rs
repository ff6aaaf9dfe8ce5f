//! `usage-proxy serve`: runs the service until a signal ends it.

use std::net::SocketAddr;

use sd_notify::NotifyState;

use super::{
    CliError,
    admin_listener::listener_url,
    config_args::{
        ConfigArgs, unreadable_secrets, unreadable_trace_headers, warnings, wrong_encryption_keys,
    },
    print_line, shell,
    signals::{drain_on_signal, reload_on_hangup},
    terminal::TerminalStyle,
};
use crate::{
    app::{App, AppDeps},
    config::Config,
    observability::telemetry,
    open_file_limit,
    socket_activation::{InheritedSockets, SocketActivationError},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy serve --config config/examples/app-user.toml
  USAGE_PROXY__CACHE__FRESH_FOR=5m usage-proxy serve --config usage-proxy.toml
  usage-proxy serve --config usage-proxy.toml --set log.filter=debug

A flag wins over the environment, which wins over the file, which wins over the default. SIGTERM \
and SIGINT end it after the requests under way are answered, a second one ends it at once. SIGHUP \
reads the callers and certificates again.

Environment:
  USAGE_PROXY__TABLE__KEY   any key of the configuration: USAGE_PROXY__CACHE__FRESH_FOR=5m
  OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER_ARG
                            used if no key of tracing.* is set
  LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES
                            listening sockets of a service manager (sd_listen_fds)

Files:
  FILE of --config          the configuration
  upstream.auth.*_file      secrets; the file of the refresh token is rewritten as it rotates,
                            unless replicas share it in PostgreSQL
  callers.file              the callers";

pub(super) async fn run(
    args: &ConfigArgs,
    inherited: Result<InheritedSockets, SocketActivationError>,
) -> Result<(), CliError> {
    let config = Config::load(args.sources())?;
    let log = telemetry::start_logging(&config.log).map_err(CliError::usage)?;
    check_secret_files(&config)?;
    if let Some(unreadable) = unreadable_trace_headers(&config) {
        return Err(CliError::other(unreadable));
    }
    for warning in warnings(&config) {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = open_file_limit::raise_limit(&config.server) {
        tracing::warn!("{warning}");
    }
    tracing::debug!(config = config.effective(), "effective configuration");
    let inherited = inherited.map_err(CliError::other)?;
    let deps = AppDeps {
        dropped_log_lines: log.dropped_lines(),
        ..AppDeps::default()
    };
    serve_until_signalled(&config, &args.config_flag(), inherited, deps).await
}

async fn serve_until_signalled(
    config: &Config,
    config_flag: &str,
    inherited: InheritedSockets,
    deps: AppDeps,
) -> Result<(), CliError> {
    let app = App::build_with_sockets(inherited, config, deps).await?;
    drain_on_signal(app.shutdown())?;
    reload_on_hangup(app.reload(), &app.shutdown())?;
    // It fails only if there is no service manager that listens.
    drop(sd_notify::notify(&[NotifyState::Ready]));
    let (api, admin) = (app.api_address(), app.admin_address());
    if is_interactive() {
        print_line(startup_message(config, config_flag, api, admin))?;
    } else {
        tracing::info!(
            %api,
            %admin,
            upstream = %config.upstream.base_url,
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
    }
    app.run().await;
    tracing::info!("ended");
    Ok(())
}

/// Returns true if a person reads the output, so that the addresses are printed as text and not logged.
pub(super) fn is_interactive() -> bool {
    TerminalStyle::of_stdout().is_terminal && TerminalStyle::of_stderr().is_terminal
}

/// Returns the addresses, and commands to try; only words in capitals need a value.
fn startup_message(
    config: &Config,
    config_flag: &str,
    api: SocketAddr,
    admin: SocketAddr,
) -> String {
    let api_url = listener_url(api, config.server.tls.is_some());
    let admin_url = listener_url(admin, config.admin.tls.is_some());
    let callers = match (&config.callers.file, &config.callers.jwt) {
        (Some(file), None) => format!("for the callers of {}", file.display()),
        (Some(file), Some(_)) => format!("for the callers of {}, and tokens", file.display()),
        (None, Some(jwt)) => format!("for callers with a token of {}", jwt.issuer),
        (None, None) => "for everybody who can reach it".to_owned(),
    };
    let key_flag = if is_authentication_configured(config) {
        " --key-file FILE"
    } else {
        ""
    };
    format!(
        "
usage-proxy {version} asks {upstream} for usage, and listens on

  {api_url}  {callers}; in a browser: / shows usage, /docs the API
  {admin_url}  /metrics, /healthz, /readyz, /cache

Try:

  curl -s {admin_url}/readyz
  {program} get CUSTOMER --url {api_url}{key_flag}

`{program} doctor{config_flag}` says what is wrong if it is not ready. Ctrl-C ends it.
",
        version = env!("CARGO_PKG_VERSION"),
        program = shell::program_name(),
        upstream = config.upstream.base_url.host_str().unwrap_or_default(),
    )
}

fn is_authentication_configured(config: &Config) -> bool {
    config.callers.file.is_some() || config.callers.jwt.is_some()
}

/// Reads every secret once, so that a start that could never succeed fails at once.
fn check_secret_files(config: &Config) -> Result<(), CliError> {
    if let Some(wrong) = wrong_encryption_keys(config) {
        return Err(CliError::usage(wrong));
    }
    let faults = unreadable_secrets(config);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(CliError::other(faults.join("\n")))
    }
}

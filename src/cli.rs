//! The command line: `serve`, `demo`, `simulate`, `check-config`, `hash-key`.

mod demo;
mod hash_key;
mod simulate;

use std::{
    error::Error,
    fmt,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::{App, Deps, StartError},
    callers,
    config::{AuthConfig, Config, ConfigErrors, Sources, TlsConfig, secret},
    handover::{HandoverError, Inherited},
    reload::Reload,
    serve::tls::{self, TlsError},
    shutdown::Shutdown,
    telemetry,
};

/// License usage per customer: a caching reverse proxy in front of Microsoft Partner Center.
#[derive(Debug, Parser)]
#[command(name = "usage-proxy", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  usage-proxy demo                                    try it, with nothing to configure
  usage-proxy check-config --config usage-proxy.toml  is the configuration right, and what is in effect?
  usage-proxy serve --config usage-proxy.toml         serve
  usage-proxy hash-key                                a key for a caller, and its hash

Exit codes: 0 done, 1 failure, 2 wrong use or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve license usage from Partner Center.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ConfigArgs),
    /// Serve everything in one process, on an embedded stand-in for Partner Center.
    Demo(demo::DemoArgs),
    /// Run only the stand-in for Partner Center.
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::SimulateArgs),
    /// Check the configuration and print what is in effect, without secrets.
    CheckConfig(ConfigArgs),
    /// Make an access key, and the hash that configuration holds of it.
    #[command(after_help = hash_key::EXAMPLES)]
    HashKey(hash_key::HashKeyArgs),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  usage-proxy serve --config config/examples/app-user.toml
  USAGE_PROXY__CACHE__FRESH_FOR=5m usage-proxy serve --config usage-proxy.toml
  usage-proxy serve --config usage-proxy.toml --set log.filter=debug

Flags beat the environment, which beats the file, which beats the defaults.";

/// Where configuration comes from.
#[derive(Debug, Args)]
struct ConfigArgs {
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
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

/// Why a command ended.
#[derive(Debug)]
enum Failure {
    /// Wrong use or configuration.
    Usage(Box<dyn Error + Send + Sync>),
    /// Anything else.
    Other(Box<dyn Error + Send + Sync>),
}

/// Runs the command that the arguments name.
pub async fn run(cli: Cli, inherited: Result<Inherited, HandoverError>) -> ExitCode {
    let done = match cli.command {
        Command::Serve(args) => serve(&args, inherited).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::CheckConfig(args) => check_config(&args),
        Command::HashKey(args) => hash_key::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_error(&failure);
            failure.exit_code()
        }
    }
}

async fn serve(
    args: &ConfigArgs,
    inherited: Result<Inherited, HandoverError>,
) -> Result<(), Failure> {
    let config = Config::load(args.sources())?;
    telemetry::start_logging(&config.log).map_err(Failure::usage)?;
    check_secret_files(&config.upstream.auth)?;
    for warning in warnings(&config) {
        tracing::warn!("{warning}");
    }
    tracing::debug!(config = config.effective(), "effective configuration");
    let inherited = inherited.map_err(Failure::other)?;
    serve_until_signalled(&config, inherited).await
}

async fn serve_until_signalled(config: &Config, inherited: Inherited) -> Result<(), Failure> {
    let app = App::build_on(inherited, config, Deps::default()).await?;
    end_on_signal(app.shutdown())?;
    reload_on_hangup(app.reload(), &app.shutdown())?;
    tracing::info!(
        api = %app.api_address(),
        admin = %app.admin_address(),
        upstream = %config.upstream.base_url,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    app.run().await;
    tracing::info!("ended");
    Ok(())
}

fn check_config(args: &ConfigArgs) -> Result<(), Failure> {
    let config = Config::load(args.sources())?;
    let unchecked = check_callers(config.callers.file.as_deref())?;
    // They may live on the machine that serves, and not on the one that checks.
    let unreadable = secret_files(&config.upstream.auth)
        .into_iter()
        .filter_map(|(key, file)| Some(format!("{key}: {}", secret::read_secret(file).err()?)));
    let unreadable = unreadable.chain(unchecked).chain(check_tls(&config)?);
    for warning in warnings(&config).into_iter().chain(unreadable) {
        eprint_line(format_args!("warning: {warning}"));
    }
    print_line(config.effective().trim_end())
}

/// Names every fault of the callers file, or warns that it cannot be looked at: it may live on the
/// machine that serves.
fn check_callers(file: Option<&Path>) -> Result<Option<String>, Failure> {
    match file {
        Some(file) if file.exists() => {
            callers::check(file)?;
            Ok(None)
        }
        Some(file) => Ok(Some(format!(
            "callers.file: there is no {}, so it was not checked",
            file.display()
        ))),
        None => Ok(None),
    }
}

/// Names what is wrong with the files of TLS, or warns of those that cannot be read: they may live
/// on the machine that serves.
fn check_tls(config: &Config) -> Result<Vec<String>, Failure> {
    let (mut unreadable, mut faults) = (Vec::new(), Vec::new());
    for (table, files) in tls_tables(config) {
        match tls::check(files) {
            Ok(()) => {}
            Err(error @ (TlsError::Unreadable { .. } | TlsError::Key(_))) => {
                unreadable.push(format!("{table}: {error}"));
            }
            Err(error) => faults.push(format!("{table}: {error}")),
        }
    }
    if faults.is_empty() {
        Ok(unreadable)
    } else {
        Err(Failure::usage(faults.join("\n")))
    }
}

/// Reads every secret once, so that a start that could never serve fails at once and says why.
fn check_secret_files(auth: &AuthConfig) -> Result<(), Failure> {
    let faults: Vec<_> = secret_files(auth)
        .into_iter()
        .filter_map(|(key, file)| Some(format!("{key}: {}", secret::read_secret(file).err()?)))
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::other(faults.join("\n")))
    }
}

/// Files of secrets with the keys that name them.
fn secret_files(auth: &AuthConfig) -> Vec<(&'static str, &Path)> {
    let proof = auth.grant().map(|grant| grant.proof.files());
    let token = match auth {
        AuthConfig::RefreshToken {
            refresh_token_file, ..
        } => Some((
            "upstream.auth.refresh_token_file",
            refresh_token_file.as_path(),
        )),
        AuthConfig::TokenFile { token_file } => {
            Some(("upstream.auth.token_file", token_file.as_path()))
        }
        AuthConfig::ClientCredentials { .. } => None,
    };
    proof.into_iter().flatten().chain(token).collect()
}

/// What is allowed but hardly meant, of the configuration and of the files that it names.
fn warnings(config: &Config) -> Vec<String> {
    let of_files = secret_files(&config.upstream.auth)
        .into_iter()
        // Anyone may read a certificate.
        .filter(|(key, _)| *key != "upstream.auth.client_certificate_file")
        .filter_map(|(key, file)| Some(format!("{key}: {}", secret::permissions_warning(file)?)));
    let of_keys = tls_tables(config).into_iter().filter_map(|(table, tls)| {
        let warning = secret::permissions_warning(&tls.key_file)?;
        Some(format!("{table}.key_file: {warning}"))
    });
    let warnings = config.warnings().into_iter();
    warnings.chain(of_files).chain(of_keys).collect()
}

/// What TLS is configured, by the table that says so.
fn tls_tables(config: &Config) -> Vec<(&'static str, &TlsConfig)> {
    let tables = [
        ("server.tls", config.server.tls.as_ref()),
        ("admin.tls", config.admin.tls.as_ref()),
    ];
    let configured = tables.into_iter();
    configured
        .filter_map(|(table, tls)| Some((table, tls?)))
        .collect()
}

/// SIGTERM or SIGINT begins an orderly end; a second one ends the process now.
fn end_on_signal(shutdown: Shutdown) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let ending = shutdown.clone();
    shutdown.spawn(async move {
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let signal = signalled().await;
        tracing::info!(
            signal,
            "ending: no longer ready, finishing what is under way; a second signal ends it now"
        );
        ending.drain();
        let signal = signalled().await;
        tracing::warn!(signal, "ended at once");
        std::process::exit(1);
    });
    Ok(())
}

/// SIGHUP has every file that may change read again.
fn reload_on_hangup(reload: Reload, shutdown: &Shutdown) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::other)?;
    shutdown.spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(signal = "SIGHUP", "reading files again");
            reload.ask();
        }
    });
    Ok(())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

/// To standard output; who reads it may be gone, which is a failure like any other.
fn print_line(line: impl fmt::Display) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(Failure::other)
}

/// To standard error, where nobody need be.
fn eprint_line(line: impl fmt::Display) {
    writeln!(std::io::stderr().lock(), "{line}").unwrap_or_default();
}

fn print_error(failure: &Failure) {
    let (Failure::Usage(error) | Failure::Other(error)) = failure;
    let mut line = format!("usage-proxy: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    eprint_line(line);
}

// === impl ConfigArgs ===

impl ConfigArgs {
    fn sources(&self) -> Sources {
        let mut sources = Sources::from_process();
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
        for (key, value) in &self.set {
            sources = sources.with_flag(format!("--set {key}"), key, value);
        }
        sources
    }
}

// === impl Failure ===

impl Failure {
    fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Usage(error.into())
    }

    fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Usage(errors.into())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Callers(faults) => faults.into(),
            other => Self::other(other),
        }
    }
}

/// The address that a listener should have, from a flag.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

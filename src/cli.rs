//! The command line: its parser, the commands, and their output.
//!
//! Each command has a file of its own. The help after the options has paragraphs of one line, which
//! are wrapped to the width of the terminal, and lists with a heading, which are not; `man` prints
//! the same.

mod admin_listener;
mod backfill;
mod check_config;
mod config_args;
mod consent;
mod demo;
mod doctor;
mod get;
mod hash_key;
mod healthcheck;
mod progress;
mod reference;
mod serve;
mod shell;
mod signals;
mod simulate;
mod store;
mod terminal;

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use self::config_args::ConfigArgs;
use crate::{
    app::{AppFuture, AppStartError},
    config::ConfigErrors,
    socket_activation::{InheritedSockets, SocketActivationError},
    text::error_chain,
};

/// License usage per customer: a caching reverse proxy in front of Microsoft Partner Center.
///
/// It has the partner's credentials, calls Partner Center as rarely as possible, caches each answer
/// by customer and processed date, and serves any number of dashboards, also while Partner Center is
/// down.
#[derive(Debug, Parser)]
#[command(name = "usage-proxy", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

const EXAMPLES: &str = "\
Examples:
  usage-proxy demo                                    try it, without any configuration
  usage-proxy check-config --config usage-proxy.toml  check the configuration
  usage-proxy consent --config usage-proxy.toml       sign in once, for the refresh token
  usage-proxy doctor --config usage-proxy.toml        find out why it does not work
  usage-proxy serve --config usage-proxy.toml         serve
  usage-proxy get 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04
                                                      print a customer's usage
  usage-proxy hash-key                                make a key for a caller, and its hash
  usage-proxy openapi > openapi.json                  describe the API, for client generators

Environment:
  USAGE_PROXY__TABLE__KEY  any key of the configuration: USAGE_PROXY__CACHE__FRESH_FOR=5m
  NO_COLOR                 if not empty: no colours

Files:
  /etc/usage-proxy/usage-proxy.toml  the configuration of packages; --config names it

Exit codes:
  0    success
  1    failure
  2    wrong use or configuration
  130  ended by Ctrl-C during a wait
  141  the reader of the output has closed it, such as `| head`
  143  ended by a second SIGTERM during a wait";

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Serve license usage from Partner Center.
    #[command(after_help = serve::EXAMPLES)]
    Serve(ConfigArgs),
    /// Serve everything in one process, on an embedded stand-in for Partner Center.
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::DemoArgs),
    /// Run only the stand-in for Partner Center.
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::SimulateArgs),
    /// Print a customer's usage, from a running proxy.
    #[command(after_help = get::EXAMPLES)]
    Get(get::GetArgs),
    /// Check the configuration, and print the values in effect, without secrets.
    #[command(after_help = check_config::EXAMPLES)]
    CheckConfig(ConfigArgs),
    /// Sign in once in a browser, and write the refresh token that the service needs.
    #[command(after_help = consent::EXAMPLES)]
    Consent(consent::ConsentArgs),
    /// Find problems that keep the service from working, and say what to do.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// Fetch past dates into the store.
    #[command(after_help = backfill::EXAMPLES)]
    Backfill(backfill::BackfillArgs),
    /// Copy a store.
    #[command(subcommand, after_help = store::EXAMPLES)]
    Store(store::StoreCommand),
    /// Make an access key, and its hash for the configuration.
    #[command(after_help = hash_key::EXAMPLES)]
    HashKey(hash_key::HashKeyArgs),
    /// Ask a running proxy whether it is healthy.
    #[command(after_help = healthcheck::EXAMPLES)]
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print a completion script for a shell.
    #[command(after_help = reference::COMPLETIONS_EXAMPLES)]
    Completions(reference::CompletionsArgs),
    /// Print the manual page, or write one for each command.
    #[command(after_help = reference::MAN_EXAMPLES)]
    Man(reference::ManArgs),
    /// Print the description of the API (OpenAPI 3.1), as /openapi.json serves it.
    #[command(after_help = reference::OPENAPI_EXAMPLES)]
    Openapi,
}

/// The failure of a command.
#[derive(Debug)]
enum CliError {
    /// Wrong use or configuration.
    Usage(Box<dyn Error + Send + Sync>),
    /// Anything else.
    Other(Box<dyn Error + Send + Sync>),
    /// The reader has closed the output, such as `| head`, and needs no message.
    OutputClosed,
    /// The message is printed already; the exit code.
    AlreadyReported(u8),
}

/// Runs the command that the arguments name.
pub fn run(
    cli: Cli,
    inherited: Result<InheritedSockets, SocketActivationError>,
) -> AppFuture<'static, ExitCode> {
    Box::pin(run_command(cli, inherited))
}

async fn run_command(
    cli: Cli,
    inherited: Result<InheritedSockets, SocketActivationError>,
) -> ExitCode {
    let done = match cli.command {
        CliCommand::Serve(args) => serve::run(&args, inherited).await,
        CliCommand::Demo(args) => demo::run(&args).await,
        CliCommand::Simulate(args) => simulate::run(args).await,
        CliCommand::Get(args) => get::run(&args).await,
        CliCommand::CheckConfig(args) => check_config::run(&args),
        CliCommand::Consent(args) => consent::run(&args).await,
        CliCommand::Doctor(args) => doctor::run(&args).await,
        CliCommand::Backfill(args) => backfill::run(&args).await,
        CliCommand::Store(command) => store::run(&command).await,
        CliCommand::HashKey(args) => hash_key::run(&args),
        CliCommand::Healthcheck(args) => healthcheck::run(&args).await,
        CliCommand::Completions(args) => reference::print_completions(&args),
        CliCommand::Man(args) => reference::print_manual(&args),
        CliCommand::Openapi => reference::print_openapi(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_error(&failure);
            failure.exit_code()
        }
    }
}

/// Prints a line to standard output.
fn print_line(line: impl fmt::Display) -> Result<(), CliError> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(CliError::from_print_error)
}

/// Prints text as it is to standard output.
fn print_text(text: &[u8]) -> Result<(), CliError> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text)
        .and_then(|()| output.flush())
        .map_err(CliError::from_print_error)
}

/// Prints a line to standard error, which may be closed.
fn eprint_line(line: impl fmt::Display) {
    writeln!(std::io::stderr().lock(), "{line}").unwrap_or_default();
}

fn print_error(failure: &CliError) {
    let (CliError::Usage(error) | CliError::Other(error)) = failure else {
        return;
    };
    eprint_line(format_args!("usage-proxy: {}", error_chain(error.as_ref())));
}

// === impl CliError ===

impl CliError {
    fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Usage(error.into())
    }

    fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// A failure to write to standard output.
    fn from_print_error(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::other(format!("cannot write to standard output: {error}")),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::AlreadyReported(code) => ExitCode::from(*code),
            // As a shell reports a process that SIGPIPE ended (128 + 13).
            Self::OutputClosed => ExitCode::from(141),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Usage(errors.into())
    }
}

impl From<AppStartError> for CliError {
    fn from(error: AppStartError) -> Self {
        match error {
            AppStartError::Tables(faults) => faults.into(),
            AppStartError::Store(error) => Self::usage(error),
            other => Self::other(other),
        }
    }
}

/// Reads the address of a listener from a flag.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_wraps_only_prose() {
        let mut main = Cli::command();
        main.build();
        for command in reference::with_subcommands(&main) {
            let help = command.get_after_help().map(ToString::to_string);
            for paragraph in help.unwrap_or_default().split("\n\n") {
                let mut lines = paragraph.lines();
                let is_list = lines.next().is_some_and(|line| line.ends_with(':'))
                    && lines.all(|line| line.starts_with("  ") && line.chars().count() <= 100);

                assert!(is_list || paragraph.lines().count() <= 1, "{paragraph}");
            }
        }
    }
}

//! `usage-proxy doctor`: finds problems that keep the service from working, and says what to do.
//!
//! Each check needs the ones before it: configuration, files, the store, the network, the clock, the access
//! token, one call. The advice on credentials and refusals is the service's own.

mod files;
mod network;
mod report;
mod running_service;
mod store;
mod stored_tokens;
mod token;

use std::sync::Arc;

use clap::{Args, ValueEnum};

use self::report::{CheckFinding, DoctorReport, ReportFormat};
pub(super) use self::token::check_replaceable;
use super::{
    CliError,
    config_args::ConfigArgs,
    eprint_line,
    signals::exit_code_on_signal,
    terminal::{TerminalStyle, while_waiting},
};
use crate::{
    clock::{SharedClock, SystemClock},
    config::{AuthConfig, Config, ConfigErrors},
    domain::CustomerId,
    partner_center::probe::{
        ProbeAnswer, ProbeFailure, ProbedClaims, UpstreamProbe, WITHOUT_PROOF,
    },
    shutdown::Shutdown,
    text::error_chain,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy doctor --config usage-proxy.toml
  usage-proxy doctor --config usage-proxy.toml --customer 4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04
  usage-proxy doctor --config usage-proxy.toml --json | jq '.checks[] | select(.verdict == \"wrong\")'
  sudo systemd-run --pipe --wait -p User=usage-proxy \\
    -p LoadCredential=client_secret:/etc/usage-proxy/client_secret \\
    usage-proxy doctor --config /etc/usage-proxy/usage-proxy.toml \\
    --set 'upstream.auth.client_secret_file=${CREDENTIALS_DIRECTORY}/client_secret'

Run it as the user of the service: a file that this user cannot read is of no use to the service. \
The last example does so, with the client secret at the place of the unit of deploy/systemd and of \
the Debian package.

A refresh token that is redeemed is replaced: like the service, doctor first writes the new one to \
upstream.auth.refresh_token_file. It does not redeem the token if a usage-proxy of this account \
runs on this machine (its admin listener answers), but asks that one for its state; nor if another \
program listens there, because a usage-proxy may then run elsewhere; nor if the new token cannot \
be written so that the service can read it. --redeem changes this.

With a PostgreSQL store, replicas share their tokens there: doctor calls with the stored access token, \
and writes no refresh token. Without a valid one it redeems the newest refresh token, and stores nothing.

Checks that were skipped are counted, and --json then prints \"right\": null.

Environment:
  USAGE_PROXY__TABLE__KEY  any key of the configuration, as for serve
  NO_COLOR                 if not empty: no colours

Exit codes:
  0    nothing wrong was found
  1    something is wrong
  2    wrong use, or the configuration is wrong
  130  ended by Ctrl-C";

/// Options of the doctor.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Get this customer's usage; without it, a page of the list of customers.
    #[arg(long, value_name = "GUID", value_parser = CustomerId::parse)]
    customer: Option<CustomerId>,
    /// When to redeem a refresh token, which replaces it.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = RedeemMode::Auto)]
    redeem: RedeemMode,
    /// Print one JSON document for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RedeemMode {
    /// If no usage-proxy of this account runs on this machine.
    Auto,
    /// Always, if the new one can be written.
    Always,
    /// Never.
    Never,
}

pub(super) async fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let shutdown = Shutdown::new();
    let ended = tokio::select! {
        ended = diagnose(args, &shutdown) => ended,
        code = exit_code_on_signal()? => {
            eprint_line("ending, after the new refresh token is on disk");
            Err(CliError::AlreadyReported(code))
        }
    };
    shutdown.cancel().await;
    ended
}

async fn diagnose(args: &DoctorArgs, shutdown: &Shutdown) -> Result<(), CliError> {
    let form = if args.json {
        ReportFormat::Json
    } else {
        ReportFormat::Text
    };
    let mut report = DoctorReport::new(form, TerminalStyle::of_stdout());
    match Config::load(args.config.sources()) {
        Ok(config) => run_checks(&config, args, shutdown, &mut report).await?,
        Err(faults) => report.add_configuration(config_error_finding(&faults))?,
    }
    report.finish()
}

async fn run_checks(
    config: &Config,
    args: &DoctorArgs,
    shutdown: &Shutdown,
    report: &mut DoctorReport,
) -> Result<(), CliError> {
    report.add(config_finding(config))?;
    for warning in config.warnings() {
        report.add(CheckFinding::note("configuration", warning))?;
    }
    let clock: SharedClock = Arc::new(SystemClock);
    files::check(config, &clock, report)?;
    store::check(config, &clock, report).await?;
    let probe = match UpstreamProbe::new(&config.upstream, Arc::clone(&clock)) {
        Ok(probe) => probe,
        Err(error) => {
            let hint = "install this system's CA certificates (ca-certificates)";
            let said = error_chain(&error);
            return report.add(CheckFinding::wrong("TLS", said).hint(hint.to_owned()));
        }
    };
    network::check(config, &probe, report).await?;
    let shared = stored_tokens::check(config, shutdown, report).await?;
    let token = token::obtain(config, args.redeem, (probe, shared), shutdown, report).await?;
    let Some((probe, token)) = token else {
        let missing = "there is no access token to check";
        report.add(CheckFinding::skipped("multi-factor proof", missing))?;
        return report.add(CheckFinding::skipped(
            "call",
            "there is no access token to call with",
        ));
    };
    let claims = token.claims();
    if let Some(claims) = &claims {
        token::check_claims(claims, config, &clock, report)?;
    }
    let call = probe.call(&token, args.customer);
    let answered = while_waiting("asking Partner Center", call).await;
    report.add(multi_factor_finding(claims.as_ref(), &answered, config))?;
    report.add(call_finding(answered))
}

fn config_error_finding(faults: &ConfigErrors) -> CheckFinding {
    CheckFinding::wrong("configuration", faults.to_string()).hint(
        "`usage-proxy check-config` says the same; the commented usage-proxy.toml that comes with \
         the program explains each key"
            .to_owned(),
    )
}

fn config_finding(config: &Config) -> CheckFinding {
    let auth = match config.upstream.auth {
        AuthConfig::RefreshToken { .. } => "App+User, by a refresh token",
        AuthConfig::ClientCredentials { .. } => "an application alone",
        AuthConfig::TokenFile { .. } => "a token that another program writes",
    };
    let source = config.upstream.source.as_str();
    CheckFinding::right(
        "configuration",
        format!("usage by the {source} call, as {auth}"),
    )
}

fn call_finding(answered: Result<ProbeAnswer, (ProbeFailure, Option<bool>)>) -> CheckFinding {
    const CHECK: &str = "call";
    match answered {
        Ok(answered) => {
            let took = network::milliseconds(answered.took);
            let said = format!("Partner Center answered with {} in {took}", answered.said);
            CheckFinding::right(CHECK, said)
        }
        Err((trouble, _)) if trouble.throttled => {
            CheckFinding::note(CHECK, trouble.said).hint(trouble.action)
        }
        Err((trouble, _)) => CheckFinding::wrong(CHECK, trouble.said).hint(trouble.action),
    }
}

/// Uses Partner Center's word on the token if there is one, or else the token's own.
fn multi_factor_finding(
    claims: Option<&ProbedClaims>,
    answered: &Result<ProbeAnswer, (ProbeFailure, Option<bool>)>,
    config: &Config,
) -> CheckFinding {
    const CHECK: &str = "multi-factor proof";
    let app_only = claims.is_some_and(|claims| claims.app_only)
        || matches!(config.upstream.auth, AuthConfig::ClientCredentials { .. });
    if app_only {
        return CheckFinding::right(CHECK, "an application alone has none, and needs none");
    }
    let by_call = match answered {
        Ok(answered) => answered.multi_factor,
        Err((_, multi_factor)) => *multi_factor,
    };
    let by_claims = claims.and_then(|claims| claims.multi_factor);
    match (by_call, by_claims) {
        (Some(true), _) => CheckFinding::right(CHECK, "Partner Center says that the token has it"),
        (None, Some(true)) => CheckFinding::right(CHECK, "the token says that it has it"),
        (Some(false), _) => {
            CheckFinding::wrong(CHECK, "Partner Center says that the token has none")
                .hint(WITHOUT_PROOF.to_owned())
        }
        (None, Some(false)) => {
            CheckFinding::wrong(CHECK, "the token says that its user signed in without")
                .hint(WITHOUT_PROOF.to_owned())
        }
        (None, None) => CheckFinding::skipped(CHECK, "neither the token nor Partner Center says"),
    }
}

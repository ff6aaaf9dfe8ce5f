//! `usage-proxy simulate`: the stand-in for Partner Center alone.

use std::net::SocketAddr;

use clap::Args;

use super::{CliError, address, print_line, serve::is_interactive, signals::drain_on_signal};
use crate::{
    config::{LogConfig, RequestLog},
    observability::telemetry,
    server::bind_failure_advice,
    shutdown::Shutdown,
    simulator::{DOCUMENTED_CUSTOMER, Faults, Publication, Simulator, SimulatorOptions},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy simulate --customers 5000 --seed 7
  usage-proxy simulate --fault latency=300             milliseconds
  usage-proxy simulate --fault calls_per_minute=60
  curl -X PATCH http://127.0.0.1:7070/_simulator/faults -d '{\"status\": 503, \"retry_after\": 7}'
  curl http://127.0.0.1:7070/_simulator

It prints the configuration to use. In a pipe, a line of JSON on standard error has the address. \
Set a fault with --fault KEY=VALUE, or with PATCH while it runs.

Faults:
  api                    the calls that the others affect: all, insights, commercial, fleet_page,
                         fleet_check, customers, deployment, partner_usage or partner_deployment
  page                   the page of all customers' rows that the others affect, from 1 on
  times                  number of calls; without it, all
  latency                milliseconds before the answer
  status, code, description, retry_after
                         the answer; retry_after is seconds, or an HTTP date
  calls_per_minute       more calls are throttled
  mfa_required           401 with code 900421
  mfa_missing            isMfaCompliant: false for calls with ValidateMfa
  body                   truncated, html, empty, garbage, gzip_bomb, oversized, foreign_customer,
                         missing_fields, negative_counts, huge_counts or wrong_total; of the
                         commercial call also repeated_page, shifted_rows, shrunk_total or cut_short
  body_bytes             size of oversized and gzip_bomb
  close_mid_body, bom    true or false
  next_link              the link to the next page of the commercial call
  token_status, token_error
                         the answer of the token endpoint, such as token_error=invalid_grant
  sign_in_error          the result of a sign-in, such as access_denied
  strict_rotation        rejects a refresh token that was redeemed before
  graceful_rotation      rejects it once a token that replaced it is used";

/// Options of the simulator.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070", value_parser = address)]
    listen: SocketAddr,
    /// Number of generated customers, besides the documented one.
    #[arg(long, value_name = "N", default_value_t = SimulatorOptions::default().customers)]
    customers: usize,
    /// Seed of the generated data: the same seed makes the same customers.
    #[arg(long, value_name = "S", default_value_t = SimulatorOptions::default().seed)]
    seed: u64,
    /// Let the commercial call accept the token of an application alone, which is unproven for
    /// Partner Center.
    #[arg(long)]
    allow_app_only: bool,
    /// A fault to begin with, such as latency=300 or status=503; may be given several times.
    #[arg(long = "fault", value_name = "KEY=VALUE", value_parser = key_value)]
    faults: Vec<(String, String)>,
}

pub(super) async fn run(args: SimulateArgs) -> Result<(), CliError> {
    let mut faults = Faults::default();
    for (key, value) in &args.faults {
        faults
            .set(key, value)
            .map_err(|_| CliError::usage(fault_error(key, value)))?;
    }
    let log = LogConfig {
        format: None,
        filter: "info".to_owned(),
        requests: RequestLog::All,
    };
    let _log = telemetry::start_logging(&log).map_err(CliError::usage)?;
    let options = SimulatorOptions {
        customers: args.customers,
        seed: args.seed,
        faults,
        allow_app_only: args.allow_app_only,
        publication: Publication::Daily,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::bind(args.listen, options)
        .await
        .map_err(|error| {
            CliError::other(format!(
                "--listen {}: {}",
                args.listen,
                bind_failure_advice(&error)
            ))
        })?;
    let shutdown = Shutdown::new();
    drain_on_signal(shutdown.clone())?;
    let address = simulator.local_addr();
    print_line(startup_message(address))?;
    if !is_interactive() {
        tracing::info!(simulator = %address, version = env!("CARGO_PKG_VERSION"), "listening");
    }
    simulator.run(shutdown.clone()).await;
    shutdown.cancel().await;
    Ok(())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

fn fault_error(key: &str, value: &str) -> String {
    const HELP: &str = "`usage-proxy simulate --help` lists the faults and their values";
    let faults = serde_json::to_value(Faults::default()).unwrap_or_default();
    let names = faults
        .as_object()
        .into_iter()
        .flat_map(|names| names.keys());
    if names.clone().any(|name| name == key) {
        return format!("--fault {key}: {value:?} is not one of its values; {HELP}");
    }
    match names.min_by_key(|name| strsim::damerau_levenshtein(name, key)) {
        Some(nearest) => format!("--fault {key}: unknown fault; the nearest is {nearest}; {HELP}"),
        None => format!("--fault {key}: unknown fault; {HELP}"),
    }
}

fn startup_message(address: SocketAddr) -> String {
    format!(
        "A stand-in for Partner Center. To have usage-proxy ask it:

  upstream.base_url = \"http://{address}\"
  upstream.auth.token_url = \"http://{address}/any-tenant/oauth2/v2.0/token\"

Documented customer: {DOCUMENTED_CUSTOMER}. Its other functions: curl http://{address}/_simulator
Ctrl-C ends it.
"
    )
}

#[cfg(test)]
mod tests {
    use strum::VariantNames as _;

    use super::*;
    use crate::simulator::FaultScope;

    #[test]
    fn the_help_names_every_call_that_a_fault_can_affect() {
        let (_, calls) = EXAMPLES.split_once("the others affect: ").unwrap();
        let (calls, _) = calls.split_once("\n  page").unwrap();

        let named: Vec<_> = calls
            .split([',', ' ', '\n'])
            .filter(|word| !["", "or"].contains(word))
            .collect();

        assert_eq!(named, FaultScope::VARIANTS);
    }

    #[test]
    fn a_bad_fault_is_reported_in_plain_words() {
        for (key, value, expected) in [
            (
                "latncy",
                "3",
                "--fault latncy: unknown fault; the nearest is latency; ",
            ),
            (
                "latency",
                "abc",
                "--fault latency: \"abc\" is not one of its values; ",
            ),
            (
                "api",
                "nobody",
                "--fault api: \"nobody\" is not one of its values; ",
            ),
        ] {
            assert!(Faults::default().set(key, value).is_err());
            assert!(fault_error(key, value).starts_with(expected), "{key}");
        }
    }
}

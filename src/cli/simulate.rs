use std::net::SocketAddr;

use clap::Args;

use super::{
    CliError, address, print_line,
    serve::{drain_on_signal, is_interactive},
};
use crate::{
    config::{LogConfig, RequestLog},
    observability::telemetry,
    server::bind_failure_advice,
    shutdown::Shutdown,
    simulator::{DOCUMENTED_CUSTOMER, Faults, Simulator, SimulatorOptions},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy simulate --customers 5000 --seed 7
  usage-proxy simulate --fault latency=300             (milliseconds)
  usage-proxy simulate --fault calls_per_minute=60
  curl -X PATCH http://127.0.0.1:7070/_simulator/faults -d '{\"status\": 503, \"retry_after\": 7}'
  curl http://127.0.0.1:7070/_simulator

It prints what to configure, in a pipe too, where a line of JSON on standard error says where it
listens. A fault is given as --fault KEY=VALUE, or while it runs by PATCH.

Faults:
  api                    all, insights, commercial, customers, deployment, partner_usage or
                         partner_deployment: whom the others befall
  times                  how many calls; without it, all
  latency                milliseconds before the answer
  status, code, description, retry_after
                         answer so; retry_after is seconds, or an HTTP date
  calls_per_minute       throttle beyond
  mfa_required           401 with code 900421
  mfa_missing            isMfaCompliant: false to who asks by ValidateMfa
  body                   truncated, html, empty, garbage, gzip_bomb, oversized, foreign_customer,
                         missing_fields, negative_counts, huge_counts or wrong_total
  body_bytes             size of oversized and gzip_bomb
  close_mid_body, bom    true or false
  next_link              where the commercial call says it goes on
  token_status, token_error, token_times
                         the token endpoint's own, such as token_error=invalid_grant
  sign_in_error          what a sign-in ends with, such as access_denied
  strict_rotation        refuse a refresh token that was redeemed before
  graceful_rotation      refuse it once anything is used that came for it";

/// What kind of Partner Center to be.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070", value_parser = address)]
    listen: SocketAddr,
    /// How many customers to make up, besides the documented one.
    #[arg(long, value_name = "N", default_value_t = SimulatorOptions::default().customers)]
    customers: usize,
    /// What they and their usage follow from: the same seed makes the same customers.
    #[arg(long, value_name = "S", default_value_t = SimulatorOptions::default().seed)]
    seed: u64,
    /// Let the commercial call take the token of an application alone, which nobody has shown of
    /// Partner Center's.
    #[arg(long)]
    allow_app_only: bool,
    /// A fault to begin with, such as latency=300 or status=503; may be given several times.
    #[arg(long = "fault", value_name = "KEY=VALUE", value_parser = super::key_value)]
    faults: Vec<(String, String)>,
}

pub(super) async fn run(args: SimulateArgs) -> Result<(), CliError> {
    let mut faults = Faults::default();
    for (key, value) in &args.faults {
        faults
            .set(key, value)
            .map_err(|error| CliError::usage(format!("--fault {key}: {error}")))?;
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

fn startup_message(address: SocketAddr) -> String {
    format!(
        "A stand-in for Partner Center. To have usage-proxy ask it:

  upstream.base_url = \"http://{address}\"
  upstream.auth.token_url = \"http://{address}/any-tenant/oauth2/v2.0/token\"

Documented customer: {DOCUMENTED_CUSTOMER}. What else it can do: curl http://{address}/_simulator
Ctrl-C ends it.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_call_that_a_fault_can_affect() {
        let (_, faults) = EXAMPLES.split_once("  api ").unwrap();
        let (told, _) = faults.split_once(": whom").unwrap();

        let refused = Faults::default().set("api", "nobody").unwrap_err();

        // serde's own list of the enum's names.
        let refused = refused.to_string();
        let names: Vec<_> = refused.split('`').skip(3).step_by(2).collect();
        assert!(names.len() > 1, "{refused}");
        let told: Vec<_> = told
            .split([',', ' ', '\n'])
            .filter(|word| !["", "or"].contains(word))
            .collect();
        assert_eq!(told, names);
    }
}

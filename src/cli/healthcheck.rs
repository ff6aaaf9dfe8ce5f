//! `usage-proxy healthcheck`: asks a running proxy for its health.

use std::time::Duration;

use clap::Args;
use http::StatusCode;

use super::{
    CliError,
    admin_listener::{ReadinessReply, error_reason, fetch, local_url, printable},
    config_args::ConfigArgs,
    print_line,
};
use crate::{
    clock::{Clock as _, SystemClock},
    config::{AdminConfig, parse_duration},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy healthcheck --config usage-proxy.toml           is it alive? (/healthz)
  usage-proxy healthcheck --config usage-proxy.toml --ready   is it ready? (/readyz)
  usage-proxy healthcheck --config usage-proxy.toml --ready --wait 30s
                                                              waits until it is, after a start
  usage-proxy healthcheck --admin-listen 127.0.0.1:9090       without a configuration

It reads only admin.* of the configuration, from the same sources as `serve`, and needs no key. If \
the service has the sockets of a service manager instead of admin.listen, give their address with \
--admin-listen.

Exit codes:
  0  healthy
  1  not healthy or unknown: a line on standard error says why
  2  wrong use";

/// Time between two probes.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Options of a health check.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask whether it can answer dashboards, and not only whether it is alive.
    #[arg(long)]
    ready: bool,
    /// Repeat until it is healthy, for at most this time (30s, 2m).
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

pub(super) async fn run(args: &HealthcheckArgs) -> Result<(), CliError> {
    // Exit code 1, since Docker reserves 2.
    let admin = AdminConfig::load(args.config.sources())
        .map_err(|errors| CliError::other(errors.to_string().replace('\n', "; ")))?;
    if admin.listen.port() == 0 {
        return Err(CliError::other(
            "admin.listen has port 0, which takes a free one; give the real port with \
             --admin-listen",
        ));
    }
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("{}/{path}", local_url(&admin));
    let clock = SystemClock;
    let deadline = args.wait.map(|wait| clock.now() + wait);
    let reason = loop {
        let Err(reason) = check_health(&url).await else {
            return print_line(if args.ready { "ready" } else { "healthy" });
        };
        let next = clock.now() + RETRY_INTERVAL;
        if deadline.is_none_or(|deadline| next > deadline) {
            break reason;
        }
        clock.sleep_until(next).await;
    };
    Err(CliError::other(format!("{url}: {reason}")))
}

/// Probes once; returns the reason if it is not healthy.
async fn check_health(url: &str) -> Result<(), String> {
    let (status, body) = fetch(url).await.map_err(error_reason)?;
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(pending_gates(&body).unwrap_or_else(|| format!("answered {status}; expected 200 OK")))
}

/// Describes the closed gates of `/readyz`.
fn pending_gates(body: &[u8]) -> Option<String> {
    let reply: ReadinessReply = serde_json::from_slice(body).ok()?;
    let pending = reply.gates.into_iter().filter_map(|gate| {
        let waits_for = gate.waits_for?;
        Some(format!("{} waits for {waits_for}", gate.name))
    });
    let pending: Vec<_> = pending.collect();
    (!pending.is_empty()).then(|| printable(&pending.join("; ")))
}

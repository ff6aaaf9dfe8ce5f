//! `usage-proxy healthcheck`: asks a running proxy how it is, for whoever can only run a command.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;
use http::StatusCode;
use serde::Deserialize;

use super::{CliError, config_args::ConfigArgs, print_line};
use crate::{
    clock::{Clock as _, SystemClock},
    config::{AdminConfig, parse_duration},
    http_client,
    text::{root_cause, to_printable_line},
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

/// From connecting to the last byte. The answer costs microseconds, so this is all waiting.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Between two questions.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

const USER_AGENT: &str = concat!("usage-proxy-healthcheck/", env!("CARGO_PKG_VERSION"));

/// Characters of what the proxy says that are passed on.
const MAX_REASON_LENGTH: usize = 300;

/// What to ask, and whom.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask whether it can answer dashboards, and not only whether it lives.
    #[arg(long)]
    ready: bool,
    /// Ask again until it is so, for this long at most (30s, 2m).
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

pub(super) async fn run(args: &HealthcheckArgs) -> Result<(), CliError> {
    // Not wrong use, whose exit code 2 Docker reserves: who started the proxy is to blame.
    let admin = AdminConfig::load(args.config.sources())
        .map_err(|faults| CliError::other(faults.to_string().replace('\n', "; ")))?;
    let url = probe_url(&admin, args.ready)?;
    let clock = SystemClock;
    let ends = args.wait.map(|wait| clock.now() + wait);
    let why = loop {
        let Err(why) = check_health(&url).await else {
            return print_line(if args.ready { "ready" } else { "healthy" });
        };
        let next = clock.now() + RETRY_INTERVAL;
        if ends.is_none_or(|ends| next > ends) {
            break why;
        }
        clock.sleep_until(next).await;
    };
    Err(CliError::other(format!("{url}: {why}")))
}

/// Asks once: why it is not so.
async fn check_health(url: &str) -> Result<(), String> {
    let (status, body) = fetch(url).await.map_err(error_reason)?;
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(pending_gates(&body).unwrap_or_else(|| format!("answered {status}; expected 200 OK")))
}

/// Where the proxy answers, as seen from its own machine.
fn probe_url(admin: &AdminConfig, ready: bool) -> Result<String, CliError> {
    let address = connectable_address(admin.listen);
    if address.port() == 0 {
        return Err(CliError::other(
            "admin.listen has port 0, so nobody can say where it listens; expected its port, by \
             --admin-listen",
        ));
    }
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let path = if ready { "readyz" } else { "healthz" };
    Ok(format!("{scheme}://{address}/{path}"))
}

/// "Every address" is none to connect to, but the loopback is among them.
pub(super) fn connectable_address(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

/// The certificate is not verified, as Kubernetes' own probes do not: nothing secret is sent or
/// believed, and one that has expired, or was replaced a second ago, must not have a proxy taken for
/// dead that lives. Metrics tell of certificates.
pub(super) async fn fetch(url: &str) -> reqwest::Result<(StatusCode, Vec<u8>)> {
    let client = http_client::builder()
        .user_agent(USER_AGENT)
        .timeout(TIMEOUT)
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status(), answer.bytes().await?.into()))
}

/// The root of the matter, in one line.
pub(super) fn error_reason(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let error = error.without_url();
    to_printable_line(&root_cause(&error).to_string(), MAX_REASON_LENGTH)
}

/// What the closed gates of `/readyz` wait for.
fn pending_gates(body: &[u8]) -> Option<String> {
    let HealthcheckReply { gates } = serde_json::from_slice(body).ok()?;
    let waiting = gates.into_iter().filter_map(|gate| {
        let what = gate.waits_for?;
        Some(format!("{} waits for {what}", gate.name))
    });
    let waiting: Vec<_> = waiting.collect();
    (!waiting.is_empty()).then(|| to_printable_line(&waiting.join("; "), MAX_REASON_LENGTH))
}

#[derive(Deserialize)]
struct HealthcheckReply {
    gates: Vec<HealthcheckGate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthcheckGate {
    name: String,
    waits_for: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_probed_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("127.0.0.1:9091", "127.0.0.1:9091"),
            ("192.0.2.7:9090", "192.0.2.7:9090"),
            ("[2001:db8::7]:9090", "[2001:db8::7]:9090"),
        ] {
            let reached = connectable_address(listen.parse().unwrap());

            assert_eq!(reached.to_string(), asked, "{listen}");
        }
    }
}

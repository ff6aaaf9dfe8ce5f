//! The admin listener of a running usage-proxy, as other commands call it.

use std::{
    error::Error as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http::StatusCode;
use serde::Deserialize;

use crate::{
    admin::readiness::account_id,
    config::{AdminConfig, Config},
    http_client,
    text::{root_cause, to_printable_line},
};

/// From connecting to the last byte. The answer itself takes microseconds.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

const USER_AGENT: &str = concat!("usage-proxy-healthcheck/", env!("CARGO_PKG_VERSION"));

/// Length of a message of the proxy that is printed, in characters.
const MAX_MESSAGE_LENGTH: usize = 300;

/// The body of `/readyz`.
#[derive(Deserialize)]
pub(super) struct ReadinessReply {
    pub(super) account: Option<String>,
    pub(super) gates: Vec<ReadinessReplyGate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadinessReplyGate {
    pub(super) name: String,
    pub(super) waits_for: Option<String>,
    pub(super) note: Option<String>,
}

/// Returns the URL of the admin listener, as seen from its own machine.
pub(super) fn local_url(admin: &AdminConfig) -> String {
    listener_url(admin.listen, admin.tls.is_some())
}

/// Returns the URL of a listener, as seen from its own machine.
pub(super) fn listener_url(address: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}", connectable_address(address))
}

/// Returns an address to connect to; for an unspecified address that is the loopback.
pub(super) fn connectable_address(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

/// Looks for the running service of a configuration. Returns `None` if nothing listens at its admin
/// listener.
///
/// # Errors
///
/// The reason why a service may be running. Two processes of one account would use the same refresh token,
/// so every doubt counts.
pub(super) async fn find_service(config: &Config) -> Result<Option<ReadinessReply>, String> {
    let address = connectable_address(config.admin.listen);
    if address.port() == 0 {
        return Err("admin.listen has port 0, which takes a free one".to_owned());
    }
    let body = match fetch(&format!("{}/readyz", local_url(&config.admin))).await {
        Ok((_, body)) => body,
        Err(error) if is_connection_refused(&error) => return Ok(None),
        Err(error) => return Err(format!("at {address}: {}", error_reason(error))),
    };
    let Ok(reply) = serde_json::from_slice::<ReadinessReply>(&body) else {
        return Err(format!("what answers at {address} is no usage-proxy"));
    };
    if reply.account != Some(account_id(&config.upstream)) {
        return Err(format!(
            "another usage-proxy listens there ({address}), for another account or of another version"
        ));
    }
    Ok(Some(reply))
}

/// Gets a URL.
///
/// The certificate is not verified, as in Kubernetes' own probes: nothing secret is sent or
/// trusted, and a proxy whose certificate has expired is still alive. Metrics report certificates.
pub(super) async fn fetch(url: &str) -> reqwest::Result<(StatusCode, Vec<u8>)> {
    let client = http_client::builder()
        .user_agent(USER_AGENT)
        .timeout(TIMEOUT)
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let response = client.get(url).send().await?;
    Ok((response.status(), response.bytes().await?.into()))
}

/// Returns true if nothing listens there, or this machine has no such address.
pub(super) fn is_connection_refused(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable
            );
        }
        cause = error.source();
    }
    false
}

/// Returns the root cause, in one line.
pub(super) fn error_reason(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    printable(&root_cause(&error.without_url()).to_string())
}

/// Makes a message of the proxy one line of limited length.
pub(super) fn printable(message: &str) -> String {
    to_printable_line(message, MAX_MESSAGE_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_probed_on_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("127.0.0.1:9091", "127.0.0.1:9091"),
            ("[2001:db8::7]:9090", "[2001:db8::7]:9090"),
        ] {
            let address = connectable_address(listen.parse().unwrap());

            assert_eq!(address.to_string(), expected, "{listen}");
        }
    }
}

//! A usage-proxy that runs for this account, as its admin listener tells of it.

use std::{error::Error as _, io, net::SocketAddr};

use serde::Deserialize;

use super::super::healthcheck::{self, connectable_address};
use crate::{
    admin::readiness::account_id,
    config::{AdminConfig, Config},
};

/// What listens where ours would.
#[derive(Debug)]
pub(super) enum LocalService {
    /// Nothing does, so none of ours runs there.
    NotRunning,
    Running(ServiceStatus),
    /// Something else, or nobody can say what, so that ours may run all the same: why.
    Unknown(String),
}

/// How it is.
#[derive(Debug)]
pub(super) struct ServiceStatus {
    pub(super) address: SocketAddr,
    /// What it waits for; empty: it is ready.
    pub(super) pending: String,
    /// What a person should know all the same.
    pub(super) notes: String,
}

/// What `/readyz` tells.
#[derive(Deserialize)]
struct ReadinessReply {
    account: Option<String>,
    gates: Vec<ReadinessReplyGate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadinessReplyGate {
    waits_for: Option<String>,
    note: Option<String>,
}

/// Asks whatever listens at `admin.listen`.
pub(super) async fn detect(config: &Config) -> LocalService {
    let address = connectable_address(config.admin.listen);
    let body = match fetch_readiness(&config.admin, address).await {
        Ok(body) => body,
        Err(error) if is_connection_refused(&error) => return LocalService::NotRunning,
        Err(error) => {
            let why = healthcheck::error_reason(error);
            return LocalService::Unknown(format!("at {address}: {why}"));
        }
    };
    let Ok(ReadinessReply { account, gates }) = serde_json::from_slice(&body) else {
        return LocalService::Unknown(format!("what answers at {address} is no usage-proxy"));
    };
    if account != Some(account_id(&config.upstream)) {
        return LocalService::Unknown(format!(
            "another usage-proxy listens there ({address}), for another account or of another version"
        ));
    }
    let joined = |of: fn(&ReadinessReplyGate) -> Option<&str>| {
        let texts: Vec<_> = gates.iter().filter_map(of).collect();
        texts.join("; ")
    };
    LocalService::Running(ServiceStatus {
        address,
        pending: joined(|gate| gate.waits_for.as_deref()),
        notes: joined(|gate| gate.note.as_deref()),
    })
}

async fn fetch_readiness(admin: &AdminConfig, address: SocketAddr) -> reqwest::Result<Vec<u8>> {
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let (_, body) = healthcheck::fetch(&format!("{scheme}://{address}/readyz")).await?;
    Ok(body)
}

/// Nobody listens there, or this machine has no such address.
fn is_connection_refused(error: &reqwest::Error) -> bool {
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

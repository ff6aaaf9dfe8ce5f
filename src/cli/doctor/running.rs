//! A usage-proxy that runs for this account, as its admin listener tells of it.

use std::{error::Error as _, io, net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::super::healthcheck::{self, reachable};
use crate::{
    admin::identity,
    config::{AdminConfig, Config},
};

/// It is on this machine, or not there.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What listens where ours would.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing does, so none of ours runs there.
    Nobody,
    Ours(Running),
    /// Something else, or nobody can say what, so that ours may run all the same: why.
    Unclear(String),
}

/// How it is.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) address: SocketAddr,
    /// What it waits for; empty: it is ready.
    pub(super) waits_for: String,
    /// What a person should know all the same.
    pub(super) notes: String,
}

/// What `/readyz` tells.
#[derive(Deserialize)]
struct Report {
    account: Option<String>,
    gates: Vec<Gate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gate {
    waits_for: Option<String>,
    note: Option<String>,
}

/// Asks whatever listens at `admin.listen`.
pub(super) async fn look_for(config: &Config) -> Found {
    let address = reachable(config.admin.listen);
    let body = match ask(&config.admin, address).await {
        Ok(body) => body,
        Err(error) if means_nobody(&error) => return Found::Nobody,
        Err(error) => {
            let why = healthcheck::reason(error);
            return Found::Unclear(format!("at {address}: {why}"));
        }
    };
    let Ok(Report { account, gates }) = serde_json::from_slice(&body) else {
        return Found::Unclear(format!("what answers at {address} is no usage-proxy"));
    };
    if account != Some(identity(&config.upstream)) {
        return Found::Unclear(format!(
            "another usage-proxy listens there ({address}), for another account or of another version"
        ));
    }
    let joined = |of: fn(&Gate) -> Option<&str>| {
        let texts: Vec<_> = gates.iter().filter_map(of).collect();
        texts.join("; ")
    };
    Found::Ours(Running {
        address,
        waits_for: joined(|gate| gate.waits_for.as_deref()),
        notes: joined(|gate| gate.note.as_deref()),
    })
}

async fn ask(admin: &AdminConfig, address: SocketAddr) -> reqwest::Result<Vec<u8>> {
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let http = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        // Nothing secret is sent, and what comes back is only shown.
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let answer = http
        .get(format!("{scheme}://{address}/readyz"))
        .send()
        .await?;
    Ok(answer.bytes().await?.into())
}

/// Nobody listens there, or this machine has no such address.
fn means_nobody(error: &reqwest::Error) -> bool {
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

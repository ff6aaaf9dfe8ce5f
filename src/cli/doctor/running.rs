//! A usage-proxy that runs with this configuration, as its admin listener tells of it.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::super::healthcheck::reachable;
use crate::config::AdminConfig;

/// It is on this machine, or not there.
const TIMEOUT: Duration = Duration::from_secs(3);

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
    gates: Vec<Gate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gate {
    waits_for: Option<String>,
    note: Option<String>,
}

/// `None` where none answers.
pub(super) async fn look_for(admin: &AdminConfig) -> Option<Running> {
    let address = reachable(admin.listen);
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let http = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        // Nothing secret is sent, and what comes back is only shown.
        .tls_danger_accept_invalid_certs(true)
        .build()
        .ok()?;
    let answer = http
        .get(format!("{scheme}://{address}/readyz"))
        .send()
        .await
        .ok()?;
    let report: Report = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
    let joined = |of: fn(&Gate) -> Option<&str>| {
        let texts: Vec<_> = report.gates.iter().filter_map(of).collect();
        texts.join("; ")
    };
    Some(Running {
        address,
        waits_for: joined(|gate| gate.waits_for.as_deref()),
        notes: joined(|gate| gate.note.as_deref()),
    })
}

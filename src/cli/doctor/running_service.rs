//! The usage-proxy that may run on this machine for the same account.

use std::{error::Error as _, io};

use super::{
    super::admin_listener::{
        ReadinessReply, ReadinessReplyGate, connectable_address, error_reason, fetch, local_url,
    },
    report::CheckFinding,
};
use crate::{admin::readiness::account_id, config::Config};

/// Checks that no service runs, which redeems the refresh token by itself. Another redemption could
/// cost it its token, so doubts count as a service.
pub(super) async fn check_not_running(check: &str, config: &Config) -> Result<(), CheckFinding> {
    let address = connectable_address(config.admin.listen);
    let unknown = |reason: String| {
        let said = format!(
            "the refresh token is not redeemed, because the service may be running: {reason}"
        );
        Err(CheckFinding::skipped(check, said).hint(
            "give the service's own admin listener with --admin-listen; if no service runs on any \
             machine: doctor --redeem always"
                .to_owned(),
        ))
    };
    let body = match fetch(&format!("{}/readyz", local_url(&config.admin))).await {
        Ok((_, body)) => body,
        Err(error) if is_connection_refused(&error) => return Ok(()),
        Err(error) => return unknown(format!("at {address}: {}", error_reason(error))),
    };
    let Ok(ReadinessReply { account, gates }) = serde_json::from_slice(&body) else {
        return unknown(format!("what answers at {address} is no usage-proxy"));
    };
    if account != Some(account_id(&config.upstream)) {
        return unknown(format!(
            "another usage-proxy listens there ({address}), for another account or of another \
             version"
        ));
    }
    let joined = |text: fn(&ReadinessReplyGate) -> Option<&str>| {
        let texts: Vec<_> = gates.iter().filter_map(text).collect();
        texts.join("; ")
    };
    let pending = joined(|gate| gate.waits_for.as_deref());
    let notes = joined(|gate| gate.note.as_deref());
    let service = format!("the usage-proxy that runs here ({address})");
    Err(match (pending.as_str(), notes.as_str()) {
        ("", "") => {
            CheckFinding::right(check, format!("{service} is ready, and redeems by itself"))
        }
        ("", notes) => CheckFinding::note(check, format!("{service} is ready, but: {notes}")),
        (pending, _) => CheckFinding::wrong(check, format!("{service} waits for {pending}")),
    })
}

/// Returns true if nothing listens there, or this machine has no such address.
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

//! The usage-proxy that may run on this machine for the same account.

use super::{
    super::admin_listener::{ReadinessReplyGate, connectable_address, find_service},
    report::CheckFinding,
};
use crate::config::Config;

/// Checks that no service runs, which redeems the refresh token by itself.
pub(super) async fn check_not_running(check: &str, config: &Config) -> Result<(), CheckFinding> {
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
    let gates = match find_service(config).await {
        Ok(None) => return Ok(()),
        Ok(Some(reply)) => reply.gates,
        Err(reason) => return unknown(reason),
    };
    let joined = |text: fn(&ReadinessReplyGate) -> Option<&str>| {
        let texts: Vec<_> = gates.iter().filter_map(text).collect();
        texts.join("; ")
    };
    let pending = joined(|gate| gate.waits_for.as_deref());
    let notes = joined(|gate| gate.note.as_deref());
    let address = connectable_address(config.admin.listen);
    let service = format!("the usage-proxy that runs here ({address})");
    Err(match (pending.as_str(), notes.as_str()) {
        ("", "") => {
            CheckFinding::right(check, format!("{service} is ready, and redeems by itself"))
        }
        ("", notes) => CheckFinding::note(check, format!("{service} is ready, but: {notes}")),
        (pending, _) => CheckFinding::wrong(check, format!("{service} waits for {pending}")),
    })
}

//! Signals that end a command before it is done.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use super::CliError;

/// Completes when a person, or a system manager, has had enough, with the exit code to end with.
///
/// # Errors
///
/// When signals cannot be handled.
pub(super) fn exit_code_on_signal() -> Result<impl Future<Output = u8>, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::other)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::other)?;
    // The terminal was closed, or `Ctrl-\` was struck.
    let mut hangup = signal(SignalKind::hangup()).map_err(CliError::other)?;
    let mut quit = signal(SignalKind::quit()).map_err(CliError::other)?;
    Ok(async move {
        tokio::select! {
            // What a shell says of a process that SIGINT ended (128 + 2).
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 1,
            _ = hangup.recv() => 1,
            _ = quit.recv() => 1,
        }
    })
}

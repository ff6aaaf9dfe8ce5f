//! Signals that end a command before it is done.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Completes when a person, or a system manager, has had enough, with the exit code to end with.
///
/// # Errors
///
/// When signals cannot be handled.
pub(super) fn signalled() -> Result<impl Future<Output = u8>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    // The terminal was closed, or `Ctrl-\` was struck.
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::other)?;
    let mut quit = signal(SignalKind::quit()).map_err(Failure::other)?;
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

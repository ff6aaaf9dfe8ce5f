//! Signals: those that end the service in order, reload its files, or end a command.

use std::future::Future;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use crate::{reload::Reload, shutdown::Shutdown};

/// Drains at the first SIGTERM or SIGINT, and ends the process at the second one.
#[expect(
    clippy::disallowed_methods,
    reason = "`Shutdown` drops its tasks while others may still take seconds to end"
)]
pub(super) fn drain_on_signal(shutdown: Shutdown) -> Result<(), CliError> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 15),
                _ = interrupt.recv() => ("SIGINT", 2),
            }
        };
        let (signal, _) = signalled().await;
        tracing::info!(
            signal,
            "ending: no longer ready, finishing the requests under way; a second signal ends it \
             now"
        );
        // It fails only if there is no service manager that listens.
        drop(sd_notify::notify(&[NotifyState::Stopping]));
        shutdown.drain();
        let (_, number) = signalled().await;
        // As a shell reports a process that a signal ended. The log may take a second to flush.
        std::process::exit(128 + number);
    });
    Ok(())
}

/// Reads every file that may change again at SIGHUP.
pub(super) fn reload_on_hangup(reload: Reload, shutdown: &Shutdown) -> Result<(), CliError> {
    let mut hangup = listen(SignalKind::hangup())?;
    shutdown.spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!(signal = "SIGHUP", "reading files again");
            reload.trigger();
        }
    });
    Ok(())
}

/// Completes with the exit code when a signal ends the command.
///
/// # Errors
///
/// If signals cannot be handled.
pub(super) fn exit_code_on_signal() -> Result<impl Future<Output = u8>, CliError> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    // The terminal was closed, or someone pressed `Ctrl-\`.
    let mut hangup = listen(SignalKind::hangup())?;
    let mut quit = listen(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            // As a shell reports a process that SIGINT ended (128 + 2).
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 1,
            _ = hangup.recv() => 1,
            _ = quit.recv() => 1,
        }
    })
}

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(CliError::other)
}

//! A sign of life while a command waits.

use std::{
    future::Future,
    io::{self, Write as _},
    time::Duration,
};

use super::terminal::TerminalStyle;

/// What ends sooner needs no sign; one that is gone at once would only flicker.
const PATIENCE: Duration = Duration::from_secs(1);

const STEP: Duration = Duration::from_millis(120);

/// Waits for `work`, and tells on standard error what for, where that is a terminal and it takes more
/// than a second. Nothing of it is left behind.
pub(super) async fn while_waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let look = TerminalStyle::of_stderr();
    let mut work = std::pin::pin!(work);
    if !look.is_terminal {
        return work.await;
    }
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let _clears = ProgressLine;
    let mut waited = PATIENCE;
    for sign in signs(look).iter().cycle() {
        let text = format!("{sign} {what} ({} s)", waited.as_secs());
        // The last column stays free: some terminals begin a new line behind it.
        show(&look.truncate(&text, look.columns.saturating_sub(1)));
        if let Ok(done) = tokio::time::timeout(STEP, &mut work).await {
            return done;
        }
        waited += STEP;
    }
    work.await
}

fn signs(look: TerminalStyle) -> &'static [&'static str] {
    if look.has_unicode {
        &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]
    } else {
        &["|", "/", "-", "\\"]
    }
}

/// In place of what stands in the line.
fn show(text: &str) {
    let mut terminal = io::stderr().lock();
    // A terminal that is gone is told nothing.
    drop(write!(terminal, "\r\u{1b}[K{text}").and_then(|()| terminal.flush()));
}

/// The line of progress, which is cleared whichever way the wait ends.
#[derive(Debug)]
struct ProgressLine;

impl Drop for ProgressLine {
    fn drop(&mut self) {
        show("");
    }
}

//! The progress of long work, on standard error: a bar on a terminal, lines elsewhere.

use std::{fmt, time::Duration};

use indicatif::{HumanDuration, ProgressBar, ProgressFinish, ProgressStyle};

use super::{eprint_line, terminal::TerminalStyle};

/// Shows how much is done.
pub(super) struct ProgressDisplay {
    bar: Option<ProgressBar>,
    started: std::time::Instant,
    /// The amount that was done by the last line.
    last_line: u64,
}

/// The rate of the work, and the time that remains.
pub(super) struct Pace {
    pub(super) per_second: f64,
    pub(super) left: HumanDuration,
}

// === impl ProgressDisplay ===

impl ProgressDisplay {
    /// Begins with nothing done. The unit is the plural of what is counted.
    #[expect(clippy::disallowed_methods, reason = "the time of a person who waits")]
    pub(super) fn new(unit: &str) -> Self {
        let bar = TerminalStyle::of_stderr().is_terminal.then(|| {
            let bar = ProgressBar::new(0).with_finish(ProgressFinish::AndClear);
            let template = format!("{{wide_bar}} {{pos}}/{{len}} {unit}{{msg}}");
            match ProgressStyle::with_template(&template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            started: std::time::Instant::now(),
            last_line: 0,
        }
    }

    /// Shows that so many of all are done, and the pace. In a pipe it is a line with a summary, each time
    /// that so many more are done.
    pub(super) fn show(
        &mut self,
        done: u64,
        all: u64,
        line_interval: u64,
        pace: &str,
        summary: impl FnOnce() -> String,
    ) {
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(done);
            bar.set_message(pace.to_owned());
        } else if done >= self.last_line + line_interval {
            self.last_line = done;
            eprint_line(format_args!("{}{pace}", summary()));
        }
    }

    /// Returns the pace of work that has done so many since the start; `None` before the first.
    pub(super) fn pace(&self, done: u64, remaining: u64) -> Option<Pace> {
        if done == 0 {
            return None;
        }
        let elapsed = self.started.elapsed().max(Duration::from_secs(1));
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate is shown with a few digits"
        )]
        let per_second = done as f64 / elapsed.as_secs_f64();
        let left = elapsed.as_secs().max(1) * remaining / done;
        Some(Pace {
            per_second,
            left: HumanDuration(Duration::from_secs(left)),
        })
    }

    /// Prints a line above the bar.
    pub(super) fn print_line(&self, line: impl fmt::Display) {
        match &self.bar {
            Some(bar) => bar.println(line.to_string()),
            None => eprint_line(line),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

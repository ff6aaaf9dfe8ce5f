//! The report of the doctor: a line per check, and a summary.

use console::Style;
use serde::Serialize;

use super::super::{
    CliError, print_line,
    terminal::{TerminalStyle, align_left, display_width, sanitize},
};

/// Columns of the longest check name.
const NAME_WIDTH: usize = 18;

/// Columns of the mark before a name.
const MARK_WIDTH: usize = 2;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckVerdict {
    Right,
    /// It works, but needs attention.
    Note,
    Wrong,
    /// Not checked, because something else failed.
    Skipped,
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CheckFinding {
    pub(super) check: String,
    pub(super) verdict: CheckVerdict,
    pub(super) said: String,
    /// The advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// The findings so far.
#[derive(Debug)]
pub(super) struct DoctorReport {
    findings: Vec<CheckFinding>,
    style: TerminalStyle,
    format: ReportFormat,
    /// True if the configuration is wrong, which has an exit code of its own.
    misconfigured: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportFormat {
    /// A line per check as soon as it is done, with its hint below.
    Text,
    /// One document at the end.
    Json,
}

#[derive(Serialize)]
struct ReportDocument<'a> {
    /// `None` if nothing wrong was found, but not everything was checked.
    right: Option<bool>,
    checks: &'a [CheckFinding],
}

// === impl CheckFinding ===

impl CheckFinding {
    pub(super) fn right(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Right, said)
    }

    pub(super) fn note(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Note, said)
    }

    pub(super) fn wrong(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Wrong, said)
    }

    pub(super) fn skipped(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, CheckVerdict::Skipped, said)
    }

    /// Adds an advice.
    pub(super) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }

    fn new(check: &str, verdict: CheckVerdict, said: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            verdict,
            said: said.into(),
            hint: None,
        }
    }

    /// Formats the line and the hint below it.
    fn text(&self, look: TerminalStyle) -> String {
        let (mark, style) = self.verdict.mark(look);
        let room = look
            .columns
            .saturating_sub(MARK_WIDTH + NAME_WIDTH + 1)
            .max(20);
        let mut lines = Vec::new();
        for line in self.said.lines() {
            lines.extend(TerminalStyle::wrap(&sanitize(line), room));
        }
        let hint = self.hint.iter().flat_map(|hint| hint.lines());
        for line in hint {
            let arrow = look.unicode_or_ascii("→ ", "> ");
            let wrapped =
                TerminalStyle::wrap(&sanitize(line), room.saturating_sub(display_width(arrow)));
            let blanks = " ".repeat(display_width(arrow));
            let before = std::iter::once(arrow).chain(std::iter::repeat(blanks.as_str()));
            lines.extend(
                before
                    .zip(wrapped)
                    .map(|(before, line)| format!("{before}{line}")),
            );
        }
        let indent = format!("\n{}", " ".repeat(MARK_WIDTH + NAME_WIDTH + 1));
        format!(
            "{} {} {}",
            look.styled(&style, mark),
            align_left(&self.check, NAME_WIDTH),
            lines.join(&indent)
        )
    }
}

// === impl CheckVerdict ===

impl CheckVerdict {
    fn mark(self, look: TerminalStyle) -> (&'static str, Style) {
        match self {
            Self::Right => (look.unicode_or_ascii("✓", "+"), Style::new().green()),
            Self::Note => ("!", Style::new().yellow()),
            Self::Wrong => (look.unicode_or_ascii("✗", "x"), Style::new().red()),
            Self::Skipped => ("-", Style::new().dim()),
        }
    }
}

// === impl DoctorReport ===

impl DoctorReport {
    pub(super) fn new(form: ReportFormat, look: TerminalStyle) -> Self {
        Self {
            findings: Vec::new(),
            style: look,
            format: form,
            misconfigured: false,
        }
    }

    pub(super) fn add(&mut self, finding: CheckFinding) -> Result<(), CliError> {
        if self.format == ReportFormat::Text {
            print_line(finding.text(self.style))?;
        }
        self.findings.push(finding);
        Ok(())
    }

    /// Adds a finding about the configuration.
    pub(super) fn add_configuration(&mut self, finding: CheckFinding) -> Result<(), CliError> {
        self.misconfigured |= finding.verdict == CheckVerdict::Wrong;
        self.add(finding)
    }

    /// Prints the summary.
    ///
    /// # Errors
    ///
    /// If anything is wrong, which is printed by then.
    pub(super) fn finish(self) -> Result<(), CliError> {
        let (wrong, notes) = (
            self.count(CheckVerdict::Wrong),
            self.count(CheckVerdict::Note),
        );
        let skipped = self.count(CheckVerdict::Skipped);
        match self.format {
            ReportFormat::Json => print_line(
                serde_json::to_string_pretty(&ReportDocument {
                    right: (wrong > 0 || skipped == 0).then_some(wrong == 0),
                    checks: &self.findings,
                })
                .map_err(CliError::other)?,
            )?,
            ReportFormat::Text => print_line(format_args!("\n{}", summary(wrong, notes, skipped)))?,
        }
        match wrong {
            0 => Ok(()),
            _ if self.misconfigured => Err(CliError::AlreadyReported(2)),
            _ => Err(CliError::AlreadyReported(1)),
        }
    }

    fn count(&self, verdict: CheckVerdict) -> usize {
        let is = |finding: &&CheckFinding| finding.verdict == verdict;
        self.findings.iter().filter(is).count()
    }
}

fn summary(wrong: usize, notes: usize, skipped: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (count, of_one, of_many) in [
        (wrong, "is wrong", "are wrong"),
        (notes, "is worth a look", "are worth a look"),
        (skipped, "was not looked at", "were not looked at"),
    ] {
        // Only the first part says `things`.
        let (thing, things) = match parts.first() {
            None => (" thing", " things"),
            Some(_) => ("", ""),
        };
        match count {
            0 => {}
            1 => parts.push(format!("1{thing} {of_one}")),
            _ => parts.push(format!("{count}{things} {of_many}")),
        }
    }
    let counted = parts.join(", ");
    match (wrong, skipped) {
        (0, 0) if notes == 0 => "Everything is right.".to_owned(),
        (0, 0) => format!("Nothing is wrong; {counted}."),
        (0, _) => format!("Nothing wrong was found; {counted}."),
        _ => format!("{counted}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: TerminalStyle = TerminalStyle {
        is_terminal: true,
        columns: 50,
        has_unicode: true,
        has_color: false,
    };

    #[test]
    fn a_finding_is_printed_with_its_hint_below() {
        let finding = CheckFinding::wrong("clock", "is 2 h behind that of the token endpoint")
            .hint("set it:\u{1b}[2J timedatectl set-ntp true".to_owned());

        assert_eq!(
            finding.text(LOOK),
            "\
✗ clock              is 2 h behind that of the
                     token endpoint
                     → set it:?[2J timedatectl
                       set-ntp true"
        );
        let ascii = TerminalStyle {
            has_unicode: false,
            ..LOOK
        };
        assert!(finding.text(ascii).is_ascii());
    }

    #[test]
    fn the_summary_counts_wrong_noted_and_skipped_checks() {
        for (wrong, notes, skipped, expected) in [
            (0, 0, 0, "Everything is right."),
            (0, 1, 0, "Nothing is wrong; 1 thing is worth a look."),
            (
                0,
                0,
                2,
                "Nothing wrong was found; 2 things were not looked at.",
            ),
            (
                0,
                1,
                1,
                "Nothing wrong was found; 1 thing is worth a look, 1 was not looked at.",
            ),
            (1, 0, 0, "1 thing is wrong."),
            (1, 0, 2, "1 thing is wrong, 2 were not looked at."),
            (2, 3, 0, "2 things are wrong, 3 are worth a look."),
        ] {
            assert_eq!(summary(wrong, notes, skipped), expected);
        }
    }
}

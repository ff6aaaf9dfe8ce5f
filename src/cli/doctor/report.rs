//! What was found, told line by line, and at the end in sum.

use serde::Serialize;

use super::super::{
    Failure, print_line,
    terminal::{Ink, Look, harmless, left, width},
};

/// Columns of the longest name of a check.
const NAME: usize = 18;

/// What stands before a name.
const MARK: usize = 2;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Right,
    /// It works, and someone should look at it.
    Note,
    Wrong,
    /// Not looked at, since something stood in the way.
    Skipped,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) verdict: Verdict,
    pub(super) said: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Report {
    findings: Vec<Finding>,
    look: Look,
    form: Form,
    /// Configuration is to blame, which has an exit code of its own.
    misconfigured: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A line for each check as soon as it is made, and hints beneath.
    Lines,
    /// One document, when all are made.
    Json,
}

#[derive(Serialize)]
struct Document<'a> {
    /// `None` where nothing wrong was found, and not everything was looked at.
    right: Option<bool>,
    checks: &'a [Finding],
}

// === impl Finding ===

impl Finding {
    pub(super) fn right(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Right, said)
    }

    pub(super) fn note(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Note, said)
    }

    pub(super) fn wrong(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Wrong, said)
    }

    pub(super) fn skipped(check: &str, said: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, said)
    }

    /// With what to do.
    pub(super) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }

    fn new(check: &str, verdict: Verdict, said: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            verdict,
            said: said.into(),
            hint: None,
        }
    }

    /// The line, and the hint beneath it.
    fn text(&self, look: Look) -> String {
        let (mark, ink) = self.verdict.mark(look);
        let room = look.columns.saturating_sub(MARK + NAME + 1).max(20);
        let mut lines = Vec::new();
        for line in self.said.lines() {
            lines.extend(Look::wrap(&harmless(line), room));
        }
        let hint = self.hint.iter().flat_map(|hint| hint.lines());
        for line in hint {
            let arrow = look.either("→ ", "> ");
            let wrapped = Look::wrap(&harmless(line), room.saturating_sub(width(arrow)));
            let blanks = " ".repeat(width(arrow));
            let before = std::iter::once(arrow).chain(std::iter::repeat(blanks.as_str()));
            lines.extend(
                before
                    .zip(wrapped)
                    .map(|(before, line)| format!("{before}{line}")),
            );
        }
        let indent = format!("\n{}", " ".repeat(MARK + NAME + 1));
        format!(
            "{} {} {}",
            look.ink(ink, mark),
            left(&self.check, NAME),
            lines.join(&indent)
        )
    }
}

// === impl Verdict ===

impl Verdict {
    fn mark(self, look: Look) -> (&'static str, Ink) {
        match self {
            Self::Right => (look.either("✓", "+"), Ink::Green),
            Self::Note => ("!", Ink::Yellow),
            Self::Wrong => (look.either("✗", "x"), Ink::Red),
            Self::Skipped => ("-", Ink::Faint),
        }
    }
}

// === impl Report ===

impl Report {
    pub(super) fn new(form: Form, look: Look) -> Self {
        Self {
            findings: Vec::new(),
            look,
            form,
            misconfigured: false,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) -> Result<(), Failure> {
        if self.form == Form::Lines {
            print_line(finding.text(self.look))?;
        }
        self.findings.push(finding);
        Ok(())
    }

    /// As [`Report::add`]; where it is wrong, configuration is to blame.
    pub(super) fn add_configuration(&mut self, finding: Finding) -> Result<(), Failure> {
        self.misconfigured |= finding.verdict == Verdict::Wrong;
        self.add(finding)
    }

    /// Sums up.
    ///
    /// # Errors
    ///
    /// Where anything is wrong, which has been told by then.
    pub(super) fn end(self) -> Result<(), Failure> {
        let (wrong, notes) = (self.count(Verdict::Wrong), self.count(Verdict::Note));
        let skipped = self.count(Verdict::Skipped);
        match self.form {
            Form::Json => print_line(
                serde_json::to_string_pretty(&Document {
                    right: (wrong > 0 || skipped == 0).then_some(wrong == 0),
                    checks: &self.findings,
                })
                .map_err(Failure::other)?,
            )?,
            Form::Lines => print_line(format_args!("\n{}", sum(wrong, notes, skipped)))?,
        }
        match wrong {
            0 => Ok(()),
            _ if self.misconfigured => Err(Failure::Told(2)),
            _ => Err(Failure::Told(1)),
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        let is = |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(is).count()
    }
}

fn sum(wrong: usize, notes: usize, skipped: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (count, of_one, of_many) in [
        (wrong, "is wrong", "are wrong"),
        (notes, "is worth a look", "are worth a look"),
        (skipped, "was not looked at", "were not looked at"),
    ] {
        // The first says what is counted.
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

    const LOOK: Look = Look {
        terminal: true,
        columns: 50,
        unicode: true,
        colour: false,
    };

    #[test]
    fn a_finding_is_a_line_with_its_hint_beneath() {
        let finding = Finding::wrong("clock", "is 2 h behind that of the token endpoint")
            .hint("set it:\u{1b}[2J timedatectl set-ntp true".to_owned());

        assert_eq!(
            finding.text(LOOK),
            "\
✗ clock              is 2 h behind that of the
                     token endpoint
                     → set it:?[2J timedatectl
                       set-ntp true"
        );
        let ascii = Look {
            unicode: false,
            ..LOOK
        };
        assert!(finding.text(ascii).is_ascii());
    }

    #[test]
    fn the_sum_counts_what_is_wrong_or_not_quite_right_and_what_nobody_looked_at() {
        for (wrong, notes, skipped, told) in [
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
            assert_eq!(sum(wrong, notes, skipped), told);
        }
    }
}

//! `usage-proxy man`: manual pages, from the same words as `--help`.
//!
//! The paragraphs after a command's options become sections: see [`ManSections`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Cli, CliError, print_line, print_text};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy man | man -l -                        read it
  usage-proxy man ~/.local/share/man/man1           install a page for each command
  man usage-proxy-serve                             and read one of them";

/// The order of man-pages(7); what is not among them comes first.
const ORDER: [&str; 5] = ["EXIT STATUS", "ENVIRONMENT", "FILES", "NOTES", "EXAMPLES"];

/// Where to.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder to write a page for each command into, made if it is not there; without it, the main
    /// page goes to standard output.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What a page says after the options.
#[derive(Debug, Default)]
struct ManSections<'a>(Vec<ManSection<'a>>);

#[derive(Debug)]
struct ManSection<'a> {
    heading: String,
    lines: Vec<&'a str>,
    layout: ManLayout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManLayout {
    /// Lines as they are: examples, and columns.
    Kept,
    /// Text, filled to the width of the page.
    Filled,
}

pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    match &args.folder {
        Some(folder) => write_pages(&command, folder).map_err(|error| {
            CliError::other(format!("cannot write to {}: {error}", folder.display()))
        })?,
        None => return print_text(&page(&command, &command).map_err(CliError::other)?),
    }
    .iter()
    .try_for_each(|file| print_line(file.display()))
}

/// Writes the page of the command and of each beneath it, and returns the files.
fn write_pages(command: &Command, folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    std::iter::once(command)
        .chain(command.get_subcommands())
        .map(|of| {
            let file = folder.join(format!("{}.1", name(of)));
            fs::write(&file, page(of, command)?)?;
            Ok(file)
        })
        .collect()
}

/// The page of a command; `main` is the one that it belongs to, perhaps itself.
fn page(command: &Command, main: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name(command).to_uppercase())
        // An empty date would be left out, and what follows take its place.
        .date(" ")
        .source(concat!("usage-proxy ", env!("CARGO_PKG_VERSION")))
        .manual("usage-proxy manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    let (own, of_main) = (after_help(command), after_help(main));
    let sections = ManSections::of(&own).with_exit_status_of(ManSections::of(&of_main));
    sections.render(&mut roff);
    see_also(command, main, &mut roff);
    roff.to_writer(&mut page)?;
    Ok(page)
}

fn name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn after_help(command: &Command) -> String {
    command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn see_also(command: &Command, main: &Command, roff: &mut Roff) {
    let is_main = name(command) == name(main);
    let others: Vec<_> = std::iter::once(main)
        .chain(main.get_subcommands())
        .map(name)
        .filter(|other| *other != name(command))
        // A command's page leads to the main one, which leads to all.
        .take(if is_main { usize::MAX } else { 1 })
        .collect();
    roff.control("SH", ["SEE ALSO"]);
    let last = others.len().saturating_sub(1);
    for (at, other) in others.into_iter().enumerate() {
        let end = if at == last { "" } else { "," };
        roff.text([bold(other), roman(format!("(1){end}"))]);
    }
}

// === impl Sections ===

impl<'a> ManSections<'a> {
    /// A paragraph whose first line ends with a colon, and whose others are indented, is a section
    /// of that name; exit codes may stand in a line. All else are notes.
    fn of(help: &'a str) -> Self {
        let mut sections = Self::default();
        let mut notes = Vec::new();
        for paragraph in help.split("\n\n") {
            match ManSection::parse(paragraph) {
                Some(section) => sections.0.push(section),
                None => notes.extend(paragraph.lines().chain([""])),
            }
        }
        if !notes.is_empty() {
            sections.0.push(ManSection {
                heading: "NOTES".to_owned(),
                lines: notes,
                layout: ManLayout::Filled,
            });
        }
        let place = |section: &ManSection<'_>| {
            let known = ORDER.iter().position(|known| *known == section.heading);
            known.map_or(0, |at| at + 1)
        };
        sections.0.sort_by_key(place);
        sections
    }

    /// Every command ends alike, unless it says otherwise.
    fn with_exit_status_of(mut self, main: Self) -> Self {
        let is_exit_status = |section: &ManSection<'_>| section.heading == "EXIT STATUS";
        if !self.0.iter().any(is_exit_status) {
            let after = |section: &ManSection<'_>| !ORDER.contains(&section.heading.as_str());
            let at = self.0.iter().take_while(|section| after(section)).count();
            self.0
                .splice(at..at, main.0.into_iter().filter(is_exit_status));
        }
        self
    }

    fn render(&self, roff: &mut Roff) {
        for section in &self.0 {
            roff.control("SH", [section.heading.as_str()]);
            match section.layout {
                ManLayout::Kept => render_kept(&section.lines, roff),
                ManLayout::Filled => render_filled(&section.lines, roff),
            }
        }
    }
}

fn render_kept(lines: &[&str], roff: &mut Roff) {
    roff.control("nf", []);
    for line in lines {
        roff.text([roman(*line)]);
    }
    roff.control("fi", []);
}

fn render_filled(lines: &[&str], roff: &mut Roff) {
    for paragraph in lines
        .split(|line| line.is_empty())
        .filter(|it| !it.is_empty())
    {
        roff.control("PP", []);
        roff.text([roman(paragraph.join(" "))]);
    }
}

// === impl Section ===

impl<'a> ManSection<'a> {
    fn parse(paragraph: &'a str) -> Option<Self> {
        if let Some(codes) = paragraph.strip_prefix("Exit codes: ") {
            return Some(Self {
                heading: "EXIT STATUS".to_owned(),
                lines: codes.lines().collect(),
                layout: ManLayout::Filled,
            });
        }
        let (first, rest) = paragraph.split_once('\n')?;
        let heading = first.strip_suffix(':')?;
        let lines: Option<Vec<_>> = rest.lines().map(|line| line.strip_prefix("  ")).collect();
        Some(Self {
            heading: match heading {
                "Exit codes" => "EXIT STATUS".to_owned(),
                other => other.to_uppercase(),
            },
            lines: lines?,
            layout: ManLayout::Kept,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_become_sections_in_the_order_of_manual_pages() {
        let help = "Examples:\n  a\n    b\n\nSome text\nthat goes on.\n\nExit codes:\n  0  done\n\n\
                    Faults:\n  c\n\nMore text.";

        let sections = ManSections::of(help).0;

        let told: Vec<_> = sections
            .iter()
            .map(|section| (section.heading.as_str(), section.lines.join("|")))
            .collect();
        assert_eq!(
            told,
            [
                ("FAULTS", "c".to_owned()),
                ("EXIT STATUS", "0  done".to_owned()),
                ("NOTES", "Some text|that goes on.||More text.|".to_owned()),
                ("EXAMPLES", "a|  b".to_owned()),
            ]
        );
    }

    #[test]
    fn exit_codes_may_stand_in_a_line() {
        let sections = ManSections::of("Exit codes: 0 healthy,\n1 not.").0;

        assert_eq!(sections.len(), 1);
        assert_eq!(sections[0].heading, "EXIT STATUS");
        assert_eq!(sections[0].lines, ["0 healthy,", "1 not."]);
    }

    #[test]
    fn every_command_says_by_example_how_it_is_used_and_how_it_ends() {
        let mut main = Cli::command().disable_help_subcommand(true);
        main.build();

        for command in std::iter::once(&main).chain(main.get_subcommands()) {
            let page = String::from_utf8(page(command, &main).unwrap()).unwrap();

            for heading in ["EXAMPLES", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
                let line = format!("\n.SH {heading}\n");
                assert_eq!(page.matches(&line).count(), 1, "{line} in {page}");
            }
        }
    }
}

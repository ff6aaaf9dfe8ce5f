//! `usage-proxy man`: manual pages, from the text of `--help`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{Cli, CliError, print_line, print_text};

pub(super) const EXAMPLES: &str = "\
Examples:
  usage-proxy man | man -l -                        read it
  usage-proxy man ~/.local/share/man/man1           install a page for each command
  man usage-proxy-serve                             read one of them";

/// Options of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder to write a page for each command into; without it, the main page goes to standard
    /// output.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &args.folder else {
        return print_text(&page(&command).map_err(CliError::other)?);
    };
    let files = write_pages(&command, folder).map_err(|error| {
        CliError::other(format!("cannot write to {}: {error}", folder.display()))
    })?;
    files.iter().try_for_each(|file| print_line(file.display()))
}

/// Writes the page of the command and of each subcommand, and returns the files.
fn write_pages(command: &Command, folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    std::iter::once(command)
        .chain(command.get_subcommands())
        .map(|command| {
            let file = folder.join(format!("{}.1", display_name(command)));
            fs::write(&file, page(command)?)?;
            Ok(file)
        })
        .collect()
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(display_name(command).to_uppercase())
        // An empty date would be left out, and the next field take its place.
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
    notes(command).to_writer(&mut page)?;
    Ok(page)
}

/// Prints the text after the options. `Man` would fill examples and tables like prose.
fn notes(command: &Command) -> Roff {
    let mut roff = Roff::new();
    let help = command.get_after_help().map(ToString::to_string);
    for paragraph in help.unwrap_or_default().split("\n\n") {
        match paragraph.split_once(":\n") {
            Some((heading, lines)) => {
                roff.control("SH", [heading.to_uppercase().as_str()]);
                roff.control("nf", []);
                for line in lines.lines() {
                    roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
                }
                roff.control("fi", []);
            }
            None => {
                roff.control("PP", []);
                roff.text([roman(paragraph)]);
            }
        }
    }
    roff
}

fn display_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_examples_line_by_line_and_the_prose_filled() {
        let mut main = Cli::command();
        main.build();
        let command = main.find_subcommand("serve").unwrap();

        let page = String::from_utf8(page(command).unwrap()).unwrap();

        for part in [
            "\n.SH EXAMPLES\n.nf\nusage\\-proxy serve \\-\\-config config/examples/app\\-user.toml\n",
            "\n.fi\n.PP\nA flag wins over",
            "\n.SH FILES\n",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}

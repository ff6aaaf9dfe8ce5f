//! `usage-proxy completions`, `man` and `openapi`: texts that are made from the program itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{Cli, CliError, print_line, print_text};
use crate::api;

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  source <(usage-proxy completions bash)                           in this bash, from now on
  usage-proxy completions bash > ~/.local/share/bash-completion/completions/usage-proxy
  usage-proxy completions zsh > ~/.zfunc/_usage-proxy              with fpath+=~/.zfunc in .zshrc
  usage-proxy completions fish > ~/.config/fish/completions/usage-proxy.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  usage-proxy man | man -l -                        read it
  usage-proxy man ~/.local/share/man/man1           install a page for each command
  man usage-proxy-serve                             read one of them";

pub(super) const OPENAPI_EXAMPLES: &str = "\
Examples:
  usage-proxy openapi > openapi.json

It prints what /openapi.json serves if everybody may call. A service that identifies its callers \
describes that in its own.";

/// Options of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder to write a page for each command into; without it, the main page goes to standard
    /// output.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(super) fn print_openapi() -> Result<(), CliError> {
    print_line(api::OPENAPI_DOCUMENT.trim_end())
}

pub(super) fn print_completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "usage-proxy", &mut script);
    // The script for bash has two names for a command with a hyphen:
    // https://github.com/clap-rs/clap/issues/6421
    let script = String::from_utf8_lossy(&script).replace("usage__subcmd__proxy", "usage__proxy");
    print_text(script.as_bytes())
}

pub(super) fn print_manual(args: &ManArgs) -> Result<(), CliError> {
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
    with_subcommands(command)
        .into_iter()
        .map(|command| {
            let file = folder.join(format!("{}.1", display_name(command)));
            fs::write(&file, page(command)?)?;
            Ok(file)
        })
        .collect()
}

/// Returns a command and all commands below it.
pub(super) fn with_subcommands(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().flat_map(with_subcommands);
    std::iter::once(command).chain(below).collect()
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

//! `usage-proxy completions`: what completes the command in a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, CliError, print_text};

pub(super) const EXAMPLES: &str = "\
Examples:
  source <(usage-proxy completions bash)                           in this bash, from now on
  usage-proxy completions bash > ~/.local/share/bash-completion/completions/usage-proxy
  usage-proxy completions zsh > ~/.zfunc/_usage-proxy              with fpath+=~/.zfunc in .zshrc
  usage-proxy completions fish > ~/.config/fish/completions/usage-proxy.fish";

/// For which shell.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "usage-proxy", &mut script);
    let script = String::from_utf8_lossy(&script);
    // The script for bash calls a command with a hyphen by one name where it tells which it is, and by
    // this one where it says what follows: https://github.com/clap-rs/clap/issues/6421
    print_text(
        script
            .replace("usage__subcmd__proxy", "usage__proxy")
            .as_bytes(),
    )
}

//! The help, the manual pages and the completions.

use crate::support::{Finished, assert_has, usage_proxy};

fn printed(args: &[&str]) -> String {
    let output = usage_proxy().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands, as `--help` lists them.
fn commands() -> Vec<String> {
    let commands = listed(&printed(&["--help"]));
    assert!(commands.contains(&"serve".to_owned()), "{commands:?}");
    let below = commands.iter().flat_map(|command| {
        let below = listed(&printed(&[command, "--help"]));
        below
            .into_iter()
            .map(move |below| format!("{command} {below}"))
    });
    let below: Vec<_> = below.collect();
    assert!(below.contains(&"store copy".to_owned()), "{below:?}");
    commands.into_iter().chain(below).collect()
}

fn listed(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:");
    (listed.skip(1))
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|command| command != "help")
        .collect()
}

#[test]
fn the_help_of_every_command_shows_examples() {
    assert_has(
        &printed(&["--help"]),
        &["Examples:", "usage-proxy serve --config"],
    );
    for command in commands() {
        let words = command.split(' ').chain(["--help"]);
        let help = printed(&words.collect::<Vec<_>>());

        let examples = help.split("Examples:\n").nth(1);
        assert_has(
            examples.unwrap_or(&help),
            &[&format!("usage-proxy {command}")],
        );
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");

    let listed = printed(&["man", pages.to_str().unwrap()]);

    let commands = commands();
    let names = commands
        .iter()
        .map(|command| format!("usage-proxy-{}.1", command.replace(' ', "-")));
    for page in names.chain(["usage-proxy.1".to_owned()]) {
        let page = pages.join(page);
        assert!(page.is_file(), "{page:?}");
        assert_has(&listed, &[page.to_str().unwrap()]);
    }
    let count = std::fs::read_dir(&pages).unwrap().count();
    assert_eq!(count, commands.len() + 1);
}

#[test]
fn an_unwritable_folder_is_reported_in_one_line() {
    let output = usage_proxy().args(["man", "/proc/no-such-folder"]).output();

    let parts = ["cannot write to /proc/no-such-folder"];
    Finished::of(output.unwrap()).assert_failed_in_one_line(1, &parts);
}

#[test]
fn a_reader_that_stops_early_causes_no_error_message() {
    for args in ["man", "completions bash", "hash-key", "openapi"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);

        let command = usage_proxy().args(args.split(' ')).stdout(writer).output();

        Finished::of(command.unwrap()).assert_failed(141, &[]);
    }
}

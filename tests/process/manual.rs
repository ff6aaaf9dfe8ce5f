//! What a person reads before trying: help, manual pages, completions.

use crate::support::usage_proxy;

fn printed(args: &[&str]) -> String {
    let output = usage_proxy().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands, as `--help` lists them.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:");
    let commands: Vec<_> = (listed.skip(1))
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|command| command != "help")
        .collect();
    assert!(commands.contains(&"serve".to_owned()), "{help}");
    commands
}

#[test]
fn the_help_of_every_command_shows_examples() {
    for command in commands() {
        let help = printed(&[&command, "--help"]);

        let example = format!("usage-proxy {command}");
        let examples = help.split("Examples:\n").nth(1);
        assert!(
            examples.is_some_and(|examples| examples.contains(&example)),
            "{help}"
        );
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");

    let told = printed(&["man", pages.to_str().unwrap()]);

    let expected: Vec<_> = std::iter::once("usage-proxy.1".to_owned())
        .chain(
            commands()
                .iter()
                .map(|command| format!("usage-proxy-{command}.1")),
        )
        .map(|page| pages.join(page))
        .collect();
    for page in &expected {
        assert!(page.is_file(), "{page:?}");
        assert!(told.contains(page.to_str().unwrap()), "{told}");
    }
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), expected.len());
}

#[test]
fn a_folder_that_cannot_be_written_is_one_clear_line() {
    let output = usage_proxy()
        .args(["man", "/proc/no-such-folder"])
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("cannot write to /proc/no-such-folder"),
        "{told}"
    );
}

#[test]
fn a_reader_that_has_had_enough_is_no_reason_to_complain() {
    for args in [
        &["man"][..],
        &["completions", "bash"],
        &["hash-key"],
        &["openapi"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);

        let output = usage_proxy().args(args).stdout(writer).output().unwrap();

        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(141), "{args:?}");
    }
}

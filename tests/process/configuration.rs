//! Wrong use and bad configuration, told all at once and before anything is served.

use std::{net::TcpListener, process::Output};

use crate::support::{Account, usage_proxy};

const SECRET: &str = "canary-client-secret-4711";

fn account() -> Account {
    Account::new("127.0.0.1:9".parse().unwrap(), SECRET, "canary-refresh")
}

#[track_caller]
fn stderr(output: &Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn wrong_use_is_told_with_the_right_one() {
    for (case, args) in [
        ("no command", &[][..]),
        ("an unknown command", &["sevre"]),
        ("an unknown flag", &["serve", "--port"]),
        ("no address", &["demo", "--listen", "here"]),
        (
            "an unknown fault",
            &["simulate", "--listen", "127.0.0.1:0", "--fault", "latncy=3"],
        ),
    ] {
        let output = usage_proxy().args(args).output().unwrap();

        assert_eq!(output.status.code(), Some(2), "{case}");
        assert!(!stderr(&output).is_empty(), "{case}");
    }
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once() {
    let account = account();
    account.write(
        "usage-proxy.toml",
        "[server]\nlisten = \"nowhere\"\n[cache]\nfresh_fro = \"5m\"\n",
    );
    for command in ["serve", "check-config"] {
        let mut command = account.command(usage_proxy(), command);
        command.env("USAGE_PROXY__UPSTREAM__RETRIES", "many").args([
            "--set",
            "log.requests=some",
            "--set",
            "log.filter",
        ]);

        let output = command.output().unwrap();

        assert_eq!(output.status.code(), Some(2));
        let told = stderr(&output);
        for (fault, parts) in [
            (
                "a bad value",
                &[
                    "usage-proxy.toml:2:10: ",
                    "server.listen = \"nowhere\"",
                    "expected ",
                ][..],
            ),
            (
                "an unknown key",
                &[
                    "usage-proxy.toml:4:1: ",
                    "cache.fresh_fro: unknown key",
                    "cache.fresh_for",
                ],
            ),
            (
                "a variable",
                &[
                    "environment variable USAGE_PROXY__UPSTREAM__RETRIES: ",
                    "upstream.retries = \"many\"",
                    "expected ",
                ],
            ),
            (
                "a flag",
                &[
                    "flag --set log.requests: ",
                    "log.requests = \"some\"",
                    "expected ",
                ],
            ),
            (
                "a flag without a value",
                &[
                    "flag --set log.filter: ",
                    "log.filter: is without a value",
                    "expected ",
                ],
            ),
            (
                "a missing key",
                &[
                    "upstream.auth.kind: missing",
                    "expected ",
                    "USAGE_PROXY__UPSTREAM__AUTH__KIND",
                ],
            ),
        ] {
            let line = told
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)));
            assert!(
                line.is_some(),
                "{fault}, expected {parts:?} on a line of:\n{told}"
            );
        }
    }
}

#[test]
fn every_fault_of_the_callers_file_stops_the_start() {
    let account = account();
    account.write(
        "callers.toml",
        "[[caller]]\nname = \"a\"\nkey_sha256 = [\"up_canary-pasted-key\"]\ncustomers = []\n\
         scopes = [\"usage:write\"]\n",
    );
    for command in ["serve", "check-config"] {
        let mut command = account.command(usage_proxy(), command);
        command.env("USAGE_PROXY__CALLERS__FILE", account.path("callers.toml"));

        let output = command.output().unwrap();

        assert_eq!(output.status.code(), Some(2));
        let told = stderr(&output);
        for place in [
            "callers.toml:3:15: ",
            "callers.toml:4:13: ",
            "callers.toml:5:11: ",
        ] {
            let line = told.lines().find(|line| line.contains(place));
            assert!(
                line.is_some_and(|line| line.contains("caller \"a\"") && line.contains("expected ")),
                "{place} in:\n{told}"
            );
        }
        assert!(!told.contains("canary"), "{told}");
    }
}

#[test]
fn a_callers_file_of_another_machine_is_no_fault_where_it_is_only_checked() {
    let account = account();
    let configured = |command: &str| {
        let mut command = account.command(usage_proxy(), command);
        command.env("USAGE_PROXY__CALLERS__FILE", account.path("callers.toml"));
        command.output().unwrap()
    };

    let (checked, served) = (configured("check-config"), configured("serve"));

    assert!(checked.status.success());
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(
        told.contains("warning: callers.file: there is no "),
        "{told}"
    );
    assert_eq!(served.status.code(), Some(2));
    let told = stderr(&served);
    assert!(told.contains("callers.toml: cannot be read: "), "{told}");
}

#[test]
fn nobody_listens_beyond_this_machine_without_saying_to_whom() {
    let account = account();
    let mut command = account.command(usage_proxy(), "serve");
    command.args(["--listen", "0.0.0.0:0"]);

    let output = command.output().unwrap();

    assert_eq!(output.status.code(), Some(2));
    let told = stderr(&output);
    for part in [
        "flag --listen: server.listen",
        "callers.file",
        "callers.anonymous = true",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn a_secret_file_that_cannot_be_read_is_one_clear_line() {
    for (case, spoil) in [
        (
            "missing",
            (|account| std::fs::remove_file(account.path("refresh-token")).unwrap())
                as fn(&Account),
        ),
        ("empty", |account| account.write("refresh-token", "\n")),
        ("a folder", |account| {
            std::fs::remove_file(account.path("refresh-token")).unwrap();
            std::fs::create_dir(account.path("refresh-token")).unwrap();
        }),
        ("another secret's, which is missing", |account| {
            std::fs::remove_file(account.path("client-secret")).unwrap();
        }),
    ] {
        let account = account();
        spoil(&account);

        let output = account.command(usage_proxy(), "serve").output().unwrap();

        assert_eq!(output.status.code(), Some(1), "{case}");
        let told = stderr(&output);
        assert_eq!(told.lines().count(), 1, "{case}: {told}");
        let folder = account.folder().display().to_string();
        assert!(
            told.starts_with("usage-proxy: ") && told.contains(&folder),
            "{case}: {told}"
        );
    }
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = holder.local_addr().unwrap();
    for (flag, key, other) in [
        ("--listen", "server.listen", "--admin-listen"),
        ("--admin-listen", "admin.listen", "--listen"),
    ] {
        let account = account();
        let serve = account.command(usage_proxy(), "serve");
        let mut demo = usage_proxy();
        demo.arg("demo");
        // The demo has no keys of configuration, only flags.
        for (mut command, named) in [(serve, key), (demo, flag)] {
            command.args([flag, &held.to_string(), other, "127.0.0.1:0"]);

            let output = command.output().unwrap();

            assert_eq!(output.status.code(), Some(1), "{named}");
            let told = stderr(&output);
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(
                told.starts_with(&format!("usage-proxy: {named} ")),
                "{told}"
            );
            for part in [&held.to_string(), "another program listens there"] {
                assert!(told.contains(part), "{part} in {told}");
            }
        }
    }
}

#[test]
fn an_admin_listener_that_others_reach_is_refused_without_a_key() {
    let account = account();
    let mut serve = account.command(usage_proxy(), "serve");
    serve.args(["--admin-listen", "0.0.0.0:0"]);
    let mut demo = usage_proxy();
    demo.args(["demo", "--listen", "127.0.0.1:0"]);
    demo.args(["--admin-listen", "0.0.0.0:0"]);

    let (serve, demo) = (serve.output().unwrap(), demo.output().unwrap());

    assert_eq!(serve.status.code(), Some(2));
    let told = stderr(&serve);
    assert_eq!(told.lines().count(), 1, "{told}");
    for part in [
        "flag --admin-listen: ",
        "admin.key_sha256",
        "usage-proxy hash-key",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(demo.status.code(), Some(2));
    assert!(stderr(&demo).contains("without a key"), "{}", stderr(&demo));
}

#[test]
fn check_config_prints_what_is_in_effect_and_no_secret() {
    let account = account();
    let mut command = account.command(usage_proxy(), "check-config");
    command
        .env("USAGE_PROXY__CACHE__FRESH_FOR", "5m")
        .args(["--set", "log.filter=debug"]);

    let output = command.output().unwrap();

    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "fresh_for = \"5m\" # environment variable USAGE_PROXY__CACHE__FRESH_FOR",
        "filter = \"debug\" # flag --set log.filter",
        "stale_if_error = \"7d\" # default",
    ] {
        assert!(printed.contains(line), "{line} in:\n{printed}");
    }
    for secret in [SECRET, "canary-refresh"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    // It loads back to the same.
    account.write("effective.toml", &printed);
    let again = usage_proxy()
        .arg("check-config")
        .arg("--config")
        .arg(account.path("effective.toml"))
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(0));
}

#[test]
fn help_shows_examples() {
    for (args, example) in [
        (&["--help"][..], "usage-proxy serve --config"),
        (
            &["serve", "--help"],
            "USAGE_PROXY__CACHE__FRESH_FOR=5m usage-proxy serve",
        ),
        (
            &["simulate", "--help"],
            "usage-proxy simulate --fault latency=300",
        ),
    ] {
        let output = usage_proxy().args(args).output().unwrap();

        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:"), "{help}");
        assert!(help.contains(example), "{example} in {help}");
    }
}

#[test]
fn check_config_names_what_is_wrong_with_the_files_of_tls() {
    let account = account();
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    account.write("certificate", &pair().cert.pem());
    account.write("key", &pair().signing_key.serialize_pem());
    let check = |key: &str| {
        let mut command = account.command(usage_proxy(), "check-config");
        for (name, file) in [("certificate_file", "certificate"), ("key_file", key)] {
            let path = account.path(file);
            command.args(["--set", &format!("admin.tls.{name}={}", path.display())]);
        }
        command.output().unwrap()
    };

    let (mismatch, elsewhere) = (check("key"), check("key-of-another-machine"));

    assert_eq!(mismatch.status.code(), Some(2));
    let told = stderr(&mismatch);
    assert!(told.contains("admin.tls: "), "{told}");
    assert!(told.contains("make no pair"), "{told}");
    assert_eq!(elsewhere.status.code(), Some(0));
    let told = String::from_utf8_lossy(&elsewhere.stderr);
    assert!(told.contains("warning: admin.tls: cannot read"), "{told}");
}

//! Wrong use and bad configuration, reported all at once and before anything is served.

use std::{net::TcpListener, process::Command};

use crate::support::{Account, Finished, assert_has, usage_proxy};

const SECRET: &str = "canary-client-secret-4711";

fn account() -> Account {
    Account::new("127.0.0.1:9".parse().unwrap(), SECRET, "canary-refresh")
}

fn output(command: &mut Command) -> Finished {
    Finished::of(command.output().unwrap())
}

#[test]
fn invalid_arguments_exit_with_2_and_an_error_message() {
    for args in [
        "",
        "sevre",
        "serve --port",
        "demo --listen here",
        "simulate --listen 127.0.0.1:0 --fault latncy=3",
    ] {
        let output = output(usage_proxy().args(args.split_whitespace()));

        output.assert_failed(2, &[]);
        assert!(!output.stderr.is_empty(), "{args}");
    }
}

#[test]
fn every_error_of_a_configuration_is_reported_at_once() {
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

        let output = output(&mut command);

        output.assert_failed(2, &[]);
        for parts in [
            [
                "usage-proxy.toml:2:10: ",
                "server.listen = \"nowhere\"",
                "expected ",
            ],
            [
                "usage-proxy.toml:4:1: ",
                "cache.fresh_fro: unknown key",
                "cache.fresh_for",
            ],
            [
                "environment variable USAGE_PROXY__UPSTREAM__RETRIES: ",
                "upstream.retries = \"many\"",
                "expected ",
            ],
            [
                "flag --set log.requests: ",
                "log.requests = \"some\"",
                "expected ",
            ],
            [
                "flag --set log.filter: ",
                "log.filter: is without a value",
                "expected ",
            ],
            [
                "upstream.auth.kind: missing",
                "expected ",
                "USAGE_PROXY__UPSTREAM__AUTH__KIND",
            ],
        ] {
            let mut lines = output.stderr.lines();
            let found = lines.any(|line| parts.iter().all(|part| line.contains(part)));
            assert!(found, "no line with {parts:?}:\n{}", output.stderr);
        }
    }
}

#[test]
fn every_error_of_the_callers_file_stops_the_start() {
    let account = account();
    account.write(
        "callers.toml",
        "[[caller]]\nname = \"a\"\nkey_sha256 = [\"up_canary-pasted-key\"]\ncustomers = []\n\
         scopes = [\"usage:write\"]\n",
    );
    for command in ["serve", "check-config"] {
        let mut command = account.command(usage_proxy(), command);
        command.env("USAGE_PROXY__CALLERS__FILE", account.path("callers.toml"));

        let output = output(&mut command);

        output.assert_failed(2, &[]);
        for place in ["3:15", "4:13", "5:11"] {
            let place = format!("callers.toml:{place}: ");
            let line = output.stderr.lines().find(|line| line.contains(&place));
            assert_has(
                line.unwrap_or(&output.stderr),
                &["caller \"a\"", "expected "],
            );
        }
        assert!(!output.stderr.contains("canary"), "{output:?}");
    }
}

#[test]
fn the_store_is_checked_and_left_as_it_is() {
    let account = account();
    let check = |file: &str| {
        let url = format!("store.url=sqlite:{}", account.path(file).display());
        output(
            account
                .command(usage_proxy(), "check-config")
                .args(["--set", &url]),
        )
    };
    account.write("text.db", "no database");
    let other = rusqlite::Connection::open(account.path("other.db")).unwrap();
    other
        .execute_batch("CREATE TABLE other (id INTEGER)")
        .unwrap();
    drop(other);
    let files = || std::fs::read_dir(account.folder()).unwrap().count();
    let before = files();

    let new = check("usage.db");
    let no_folder = check("missing/usage.db");
    let text = check("text.db");
    let other = check("other.db");

    new.assert_printed(&["store"]);
    assert_has(
        &no_folder.stderr,
        &[
            "warning: store.url: ",
            "missing: No such file",
            "make the folder",
        ],
    );
    assert_has(
        &text.stderr,
        &["warning: store.url: ", "text.db: is no SQLite database"],
    );
    assert_eq!((no_folder.code, text.code), (Some(0), Some(0)));
    other.assert_failed(2, &["other.db is a database of another program"]);
    assert_eq!(files(), before);
}

#[test]
fn a_wrong_portfolio_file_stops_the_start_and_is_checked_with_the_callers_file() {
    let account = account();
    account.write("callers.toml", "[[caller]]\nname = \"a\"\n");
    account.write(
        "portfolio.toml",
        "[[product]]\nproduct = \"E3\"\nprice = 8.70\n[[group]]\nname = \"\"\n",
    );
    let portfolio = |command: &str| {
        let mut command = account.command(usage_proxy(), command);
        command.env(
            "USAGE_PROXY__PORTFOLIO__FILE",
            account.path("portfolio.toml"),
        );
        command
    };
    let faults = [
        "portfolio.toml:1:1: product \"E3\": has price or currency alone",
        "portfolio.toml:5:8: group \"\": name = \"\": is empty",
    ];

    let served = output(&mut portfolio("serve"));
    let examined = output(&mut portfolio("doctor"));
    let both = output(
        portfolio("check-config").env("USAGE_PROXY__CALLERS__FILE", account.path("callers.toml")),
    );

    served.assert_failed(2, &faults);
    assert_eq!(examined.code, Some(2), "{examined:?}");
    both.assert_failed(2, &faults);
    assert_has(&both.stderr, &["caller \"a\": scopes: missing"]);
}

#[test]
fn a_missing_callers_file_is_only_a_warning_of_check_config() {
    let account = account();
    let configured = |command: &str| {
        let mut command = account.command(usage_proxy(), command);
        output(command.env("USAGE_PROXY__CALLERS__FILE", account.path("callers.toml")))
    };

    let (checked, served) = (configured("check-config"), configured("serve"));

    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_has(&checked.stderr, &["warning: callers.file: there is no "]);
    served.assert_failed(2, &["callers.toml: cannot be read: "]);
}

#[test]
fn a_listener_that_others_reach_is_refused_without_callers_or_a_key() {
    let account = account();
    let serve = |args: &[&str]| output(account.command(usage_proxy(), "serve").args(args));
    let api = serve(&["--listen", "0.0.0.0:0"]);
    let admin = serve(&["--admin-listen", "0.0.0.0:0"]);
    let demo = [
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "0.0.0.0:0",
    ];
    let demo = output(usage_proxy().args(demo));

    let advice = [
        "flag --listen: server.listen",
        "callers.file",
        "callers.anonymous = true",
    ];
    api.assert_failed(2, &advice);
    let advice = [
        "flag --admin-listen: ",
        "admin.key_sha256",
        "usage-proxy hash-key",
    ];
    admin.assert_failed_in_one_line(2, &advice);
    demo.assert_failed(2, &["without a key"]);
}

#[test]
fn an_unreadable_secret_file_is_reported_in_one_line() {
    let remove = |account: &Account, name| std::fs::remove_file(account.path(name)).unwrap();
    for case in [
        "missing",
        "empty",
        "a folder",
        "the other secret is missing",
    ] {
        let account = account();
        match case {
            "missing" => remove(&account, "refresh-token"),
            "empty" => account.write("refresh-token", "\n"),
            "a folder" => {
                remove(&account, "refresh-token");
                std::fs::create_dir(account.path("refresh-token")).unwrap();
            }
            _ => remove(&account, "client-secret"),
        }

        let output = output(&mut account.command(usage_proxy(), "serve"));

        let folder = account.folder().display().to_string();
        output.assert_failed_in_one_line(1, &["usage-proxy: ", &folder]);
    }
}

#[test]
fn a_port_in_use_is_reported_in_one_line() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (flag, key, other) in [
        ("--listen", "server.listen", "--admin-listen"),
        ("--admin-listen", "admin.listen", "--listen"),
    ] {
        let account = account();
        let serve = account.command(usage_proxy(), "serve");
        let mut demo = usage_proxy();
        demo.arg("demo");
        // The demo has no keys of configuration, only flags.
        for (mut command, name) in [(serve, key), (demo, flag)] {
            command.args([flag, &taken, other, "127.0.0.1:0"]);

            let output = output(&mut command);

            let start = format!("usage-proxy: {name} ");
            let parts = [&*start, &taken, "another program listens there"];
            output.assert_failed_in_one_line(1, &parts);
        }
    }
}

#[test]
fn check_config_prints_what_is_in_effect_and_no_secret() {
    let account = account();
    let mut command = account.command(usage_proxy(), "check-config");
    command
        .env("USAGE_PROXY__CACHE__FRESH_FOR", "5m")
        .args(["--set", "log.filter=debug"]);

    let output = output(&mut command);

    output.assert_printed(&[
        "fresh_for = \"5m\" # environment variable USAGE_PROXY__CACHE__FRESH_FOR",
        "filter = \"debug\" # flag --set log.filter",
        "stale_if_error = \"7d\" # default",
    ]);
    for secret in [SECRET, "canary-refresh"] {
        assert!(!output.stdout.contains(secret), "{output:?}");
    }
    // It loads back to the same.
    account.write("usage-proxy.toml", &output.stdout);
    let again = account.command(usage_proxy(), "check-config").output();
    assert!(again.unwrap().status.success());
}

#[test]
fn check_config_names_what_is_wrong_with_the_files_of_tls() {
    let account = account();
    account.write_certificate("certificate", "its-key");
    account.write_certificate("another-certificate", "key");
    let check = |key: &str| {
        let mut command = account.command(usage_proxy(), "check-config");
        for (name, file) in [("certificate_file", "certificate"), ("key_file", key)] {
            let path = account.path(file);
            command.args(["--set", &format!("admin.tls.{name}={}", path.display())]);
        }
        output(&mut command)
    };

    let (mismatch, elsewhere) = (check("key"), check("key-of-another-machine"));

    mismatch.assert_failed(2, &["admin.tls: ", "make no pair"]);
    assert_eq!(elsewhere.code, Some(0), "{elsewhere:?}");
    assert_has(&elsewhere.stderr, &["warning: admin.tls: cannot read"]);
}

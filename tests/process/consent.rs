//! `usage-proxy consent`: a browser signs in, and the service can use the new refresh token.

use std::{os::unix::fs::PermissionsExt, process::Command};

use usage_proxy::simulator::{Faults, SimulatedApi, SimulatorOptions};

use crate::support::{
    Account, PATIENCE, PartnerCenter, Reply, Running, assert_has, get, run, try_get, usage_proxy,
};

const SECRET: &str = "canary-client-secret";

/// An account without a refresh token, before a simulator that checks the client's secret.
async fn account(faults: Faults) -> (Account, PartnerCenter) {
    let upstream = PartnerCenter::start(SimulatorOptions {
        client_secret: Some(SECRET.into()),
        faults,
        ..SimulatorOptions::default()
    })
    .await;
    let account = Account::new(upstream.address, SECRET, "");
    std::fs::remove_file(account.path("refresh-token")).unwrap();
    (account, upstream)
}

/// The command, on a free port and without a screen.
fn consent(account: &Account, args: &[&str]) -> Command {
    let mut command = account.command(usage_proxy(), "consent");
    if !args.contains(&"--port") {
        command.args(["--port", "0"]);
    }
    command.args(args);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command
}

/// Waits for the end of the command, and asserts its exit code.
async fn assert_ends(running: &mut Running, code: i32) {
    let ended = running.ended().await;
    assert_eq!(ended.code(), Some(code), "{}", running.transcript());
}

/// The address that it prints.
async fn sign_in_url(running: &Running) -> String {
    let line = running.stdout.line_with("/authorize?").await;
    running.stdout.line_with("Ctrl-C ends it").await;
    line.trim().to_owned()
}

/// The address that a sign-in redirects the browser to.
async fn signed_in(url: &str) -> String {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 302, "{answer:?}");
    answer.headers()["location"].to_str().unwrap().to_owned()
}

/// Signs in, and returns the last page.
async fn browse(running: &Running) -> Reply {
    get(&signed_in(&sign_in_url(running).await).await, &[]).await
}

#[tokio::test]
async fn a_sign_in_saves_the_refresh_token_for_the_service() {
    for version in ["oauth2/v2.0/token", "oauth2/token"] {
        let (account, upstream) = account(Faults::default()).await;
        account.reconfigure("oauth2/v2.0/token", version);

        let mut running = Running::start(&mut consent(&account, &[]));
        let url = sign_in_url(&running).await;
        let back = signed_in(&url).await;
        let page = get(&back, &[]).await;

        assert_ends(&mut running, 0).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.body.contains("<h1>Signed in</h1>"), "{page:?}");
        assert!(page.head.contains("cache-control: no-store"), "{page:?}");
        let token = account.refresh_token();
        assert_eq!(upstream.handle.live_refresh_tokens(), [token.as_str()]);
        let mode = std::fs::metadata(account.path("refresh-token")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let said = running.transcript();
        let proof = "The token has multi-factor proof.";
        assert_has(&said, &[proof, " doctor --config ", " serve --config "]);
        let code = url_parameter(&back, "code");
        for secret in [SECRET, &token, &code] {
            assert!(!said.contains(secret), "{said}");
        }
        let service = account.serve().await;
        let usage = service.usage(upstream.handle.customers()[1]).await;
        assert_eq!(usage.status, 200, "{usage:?}");
    }
}

fn url_parameter(url: &str, name: &str) -> String {
    let url: url::Url = url.parse().unwrap();
    let mut pairs = url.query_pairs();
    pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test]
async fn an_answer_with_another_state_is_refused_and_the_wait_continues() {
    let (account, _upstream) = account(Faults::default()).await;
    let mut running = Running::start(&mut consent(&account, &[]));
    let back = signed_in(&sign_in_url(&running).await).await;
    let state = url_parameter(&back, "state");

    let refusal = back.replace("code=", "error=access_denied&x=");
    for (case, url) in [
        ("another state", back.replace(&state, "forged")),
        ("no state", back.replace("state=", "other=")),
        ("neither code nor error", back.replace("code=", "other=")),
        ("a forged refusal", refusal.replace(&state, "forged")),
    ] {
        let page = get(&url, &[]).await;

        assert_eq!(page.status, 400, "{case}: {page:?}");
        assert!(page.body.contains("waiting"), "{case}: {page:?}");
        assert!(!account.path("refresh-token").exists(), "{case}");
    }
    let elsewhere = get(&back.replace("/?", "/favicon.ico?"), &[]).await;
    assert_eq!(elsewhere.status, 404);

    assert_eq!(get(&back, &[]).await.status, 200);
    assert_ends(&mut running, 0).await;
    assert!(account.path("refresh-token").exists());
}

#[tokio::test]
async fn a_failed_sign_in_is_explained_and_writes_nothing() {
    let sign_in_error = |error: &str| Faults {
        sign_in_error: Some(error.to_owned()),
        ..Faults::default()
    };
    let token_error = Faults {
        token_error: Some("invalid_grant".to_owned()),
        ..Faults::default()
    };
    let without_proof = Faults {
        mfa_missing: true,
        ..Faults::default()
    };
    let declined = sign_in_error("access_denied");
    for (faults, explained) in [
        (declined, "cancelled or the consent declined"),
        (sign_in_error("server_error"), "server_error"),
        (token_error, "code of the sign-in is refused"),
        (without_proof, "multi-factor authentication"),
    ] {
        let (account, _upstream) = account(faults).await;
        account.write("refresh-token", "the old one");

        let mut running = Running::start(&mut consent(&account, &["--force"]));
        let page = browse(&running).await;

        assert_ends(&mut running, 1).await;
        assert_eq!(page.status, 400, "{page:?}");
        let parts = ["The sign-in failed", explained, "Nothing was written"];
        assert_has(&page.body, &parts);
        let said = running.stderr.text();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_has(&said, &[explained]);
        assert_eq!(account.refresh_token(), "the old one");
    }
}

#[tokio::test]
async fn an_existing_token_is_replaced_only_on_demand() {
    let (account, upstream) = account(Faults::default()).await;
    account.write("refresh-token", "the old one");

    let mut refused = Running::start(&mut consent(&account, &[]));
    assert_ends(&mut refused, 2).await;
    assert_has(&refused.stderr.text(), &["--force"]);
    assert_eq!(account.refresh_token(), "the old one");

    let mut forced = Running::start(&mut consent(&account, &["--force"]));
    browse(&forced).await;
    assert_ends(&mut forced, 0).await;
    let live = upstream.handle.live_refresh_tokens();
    assert_eq!(live, [account.refresh_token()]);
}

#[tokio::test]
async fn a_wait_ends_at_its_timeout_or_by_a_signal() {
    let (account, _upstream) = account(Faults::default()).await;

    let mut late = Running::start(&mut consent(&account, &["--timeout", "50ms"]));
    assert_ends(&mut late, 1).await;
    assert_has(&late.stderr.text(), &["nobody signed in within 50ms"]);

    let mut interrupted = Running::start(&mut consent(&account, &[]));
    sign_in_url(&interrupted).await;
    interrupted.signal("INT");
    assert_ends(&mut interrupted, 130).await;
    assert!(!account.path("refresh-token").exists());
}

#[tokio::test]
async fn an_interrupted_redemption_is_still_completed() {
    let (account, upstream) = account(Faults::default()).await;
    upstream.handle.hold_tokens();
    let mut running = Running::start(&mut consent(&account, &[]));
    let back = signed_in(&sign_in_url(&running).await).await;
    upstream.handle.clear_requests();
    let browser = tokio::spawn(async move { try_get(&back, &[]).await });
    upstream.wait_for_calls(SimulatedApi::Token, 1).await;

    running.signal("INT");
    running.stderr.line_with("ending").await;
    upstream.handle.release_tokens();

    assert_ends(&mut running, 130).await;
    let live = upstream.handle.live_refresh_tokens();
    assert_eq!(live, [account.refresh_token()]);
    drop(browser.await.unwrap());
}

#[tokio::test]
async fn obstacles_are_named_before_the_sign_in_begins() {
    let (account, _upstream) = account(Faults::default()).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let nowhere = "upstream.auth.refresh_token_file=/proc/no/refresh-token";
    let endpoint = "upstream.auth.token_url=https://login.example/oauth2/redeem";
    let scope = "upstream.auth.scope=a";
    let endpoint = ["--set", endpoint, "--set", scope];
    for (args, code, obstacle) in [
        (&["--set", nowhere][..], 1, "could not be written"),
        (&endpoint, 2, "does not end in /token"),
        (&["--timeout", "soon"], 2, "is not a duration"),
        (&["--port", &port], 1, "another program listens there"),
    ] {
        let output = run(consent(&account, args)).await;

        output.assert_failed(code, &[obstacle]);
    }
}

#[tokio::test]
async fn a_missing_refresh_token_names_the_command_that_writes_it() {
    let (account, _upstream) = account(Faults::default()).await;

    for command in ["serve", "doctor"] {
        let mut command = account.command(usage_proxy(), command);
        command.args(["--admin-listen", "127.0.0.1:9"]);
        let output = run(command).await;

        assert_eq!(output.code, Some(1), "{output:?}");
        let said = output.stdout + &output.stderr;
        let said: Vec<_> = said.split_whitespace().collect();
        assert_has(&said.join(" "), &["`usage-proxy consent` writes it"]);
    }
}

#[tokio::test]
async fn other_kinds_of_credentials_need_no_sign_in() {
    let (account, _upstream) = account(Faults::default()).await;
    account.reconfigure("\"refresh_token\"", "\"client_credentials\"");
    account.reconfigure("refresh_token_file", "# refresh_token_file");

    let output = run(consent(&account, &[])).await;

    let expected = "upstream.auth.kind: expected \"refresh_token\"";
    output.assert_failed(2, &[expected]);
}

#[tokio::test]
async fn a_browser_is_opened_if_there_is_a_display() {
    let (account, _upstream) = account(Faults::default()).await;
    // It takes the place of the desktop's own, and signs in by itself.
    account.write(
        "xdg-open",
        "#!/bin/sh\nexec curl -sL --noproxy '*' --max-time 30 \"$1\"\n",
    );
    let executable = PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(account.path("xdg-open"), executable).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", account.folder().display());
    let on_a_desktop = |args: &[&str]| {
        let mut command = consent(&account, args);
        command.env("DISPLAY", ":0").env("PATH", &path);
        Running::start(&mut command)
    };

    let mut opened = on_a_desktop(&[]);
    assert_ends(&mut opened, 0).await;
    assert!(opened.stdout.text().contains("A browser was opened"));

    let printed = on_a_desktop(&["--force", "--no-browser"]);
    browse(&printed).await;
    assert!(!printed.transcript().contains("A browser was opened"));
}

//! `usage-proxy consent`: a browser signs in, and the service can go on from there.

use std::{os::unix::fs::PermissionsExt, process::Command};

use usage_proxy::simulator::{Faults, SimulatedApi, SimulatorOptions};

use crate::support::{
    Account, PATIENCE, PartnerCenter, Reply, Running, Service, get, try_get, usage_proxy,
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
async fn a_sign_in_brings_the_refresh_token_that_the_service_goes_on_with() {
    for version in ["oauth2/v2.0/token", "oauth2/token"] {
        let (account, upstream) = account(Faults::default()).await;
        let config = std::fs::read_to_string(account.config()).unwrap();
        account.write(
            "usage-proxy.toml",
            &config.replace("oauth2/v2.0/token", version),
        );

        let mut running = Running::start(&mut consent(&account, &[]));
        let url = sign_in_url(&running).await;
        let back = signed_in(&url).await;
        let page = get(&back, &[]).await;

        let said = running.transcript();
        assert_eq!(running.ended().await.code(), Some(0), "{version}: {said}");
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.body.contains("<h1>Signed in</h1>"), "{page:?}");
        assert!(page.head.contains("cache-control: no-store"), "{page:?}");
        let token = account.refresh_token();
        assert_eq!(upstream.handle.live_refresh_tokens(), [token.as_str()]);
        let mode = std::fs::metadata(account.path("refresh-token")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let said = running.transcript();
        for next in [
            "The token carries multi-factor proof.",
            " doctor --config ",
            " serve --config ",
        ] {
            assert!(said.contains(next), "{next} in {said}");
        }
        let code = url_parameter(&back, "code");
        for secret in [SECRET, &token, &code] {
            assert!(!said.contains(secret), "{said}");
        }
        let service = Service::start(&mut account.command(usage_proxy(), "serve")).await;
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
async fn an_answer_with_another_state_is_refused_and_the_wait_goes_on() {
    let (account, _upstream) = account(Faults::default()).await;
    let mut running = Running::start(&mut consent(&account, &[]));
    let back = signed_in(&sign_in_url(&running).await).await;
    let state = url_parameter(&back, "state");

    for (case, url) in [
        ("another state", back.replace(&state, "forged")),
        ("no state", back.replace("state=", "other=")),
        ("neither code nor error", back.replace("code=", "other=")),
        (
            "a forged refusal",
            back.replace("code=", "error=access_denied&x=")
                .replace(&state, "forged"),
        ),
    ] {
        let page = get(&url, &[]).await;

        assert_eq!(page.status, 400, "{case}: {page:?}");
        assert!(page.body.contains("waiting"), "{case}: {page:?}");
        assert!(!account.path("refresh-token").exists(), "{case}");
    }
    let elsewhere = get(&back.replace("/?", "/favicon.ico?"), &[]).await;
    assert_eq!(elsewhere.status, 404);

    assert_eq!(get(&back, &[]).await.status, 200);
    assert_eq!(
        running.ended().await.code(),
        Some(0),
        "{}",
        running.transcript()
    );
    assert!(account.path("refresh-token").exists());
}

#[tokio::test]
async fn a_sign_in_that_brings_nothing_is_explained_and_writes_nothing() {
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
    for (faults, explained) in [
        (
            sign_in_error("access_denied"),
            "cancelled or the consent declined",
        ),
        (sign_in_error("server_error"), "server_error"),
        (token_error, "code of the sign-in is refused"),
        (without_proof, "multi-factor authentication"),
    ] {
        let (account, _upstream) = account(faults).await;
        account.write("refresh-token", "the old one");

        let mut running = Running::start(&mut consent(&account, &["--force"]));
        let page = browse(&running).await;

        assert_eq!(running.ended().await.code(), Some(1), "{explained}");
        assert_eq!(page.status, 400, "{page:?}");
        assert!(page.body.contains("The sign-in failed"), "{page:?}");
        assert!(page.body.contains(explained), "{explained} in {page:?}");
        assert!(page.body.contains("Nothing was written"), "{page:?}");
        let said = running.stderr.text();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(explained), "{explained} in {said}");
        assert_eq!(account.refresh_token(), "the old one");
    }
}

#[tokio::test]
async fn a_token_that_is_there_is_replaced_only_on_demand() {
    let (account, upstream) = account(Faults::default()).await;
    account.write("refresh-token", "the old one");

    let mut refused = Running::start(&mut consent(&account, &[]));
    assert_eq!(refused.ended().await.code(), Some(2));
    assert!(
        refused.stderr.text().contains("--force"),
        "{}",
        refused.transcript()
    );
    assert_eq!(account.refresh_token(), "the old one");

    let mut forced = Running::start(&mut consent(&account, &["--force"]));
    browse(&forced).await;
    assert_eq!(
        forced.ended().await.code(),
        Some(0),
        "{}",
        forced.transcript()
    );
    assert_eq!(
        upstream.handle.live_refresh_tokens(),
        [account.refresh_token()]
    );
}

#[tokio::test]
async fn a_wait_ends_in_time_and_by_a_signal() {
    let (account, _upstream) = account(Faults::default()).await;

    let mut late = Running::start(&mut consent(&account, &["--timeout", "50ms"]));
    assert_eq!(late.ended().await.code(), Some(1));
    let said = late.stderr.text();
    assert!(said.contains("nobody signed in within 50ms"), "{said}");

    let mut interrupted = Running::start(&mut consent(&account, &[]));
    sign_in_url(&interrupted).await;
    interrupted.signal("INT");
    assert_eq!(interrupted.ended().await.code(), Some(130));
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
    upstream
        .handle
        .wait_for_requests(SimulatedApi::Token, 1)
        .await;

    running.signal("INT");
    running.stderr.line_with("ending").await;
    upstream.handle.release_tokens();

    assert_eq!(running.ended().await.code(), Some(130));
    assert_eq!(
        upstream.handle.live_refresh_tokens(),
        [account.refresh_token()]
    );
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
    for (args, code, said) in [
        (&["--set", nowhere][..], 1, "could not be written"),
        (
            &["--set", endpoint, "--set", scope],
            2,
            "does not end in /token",
        ),
        (&["--timeout", "soon"], 2, "expected a duration"),
        (&["--port", &port], 1, "another program listens there"),
    ] {
        let mut running = Running::start(&mut consent(&account, args));

        assert_eq!(running.ended().await.code(), Some(code), "{said}");
        let told = running.stderr.text();
        assert!(told.contains(said), "{said} in {told}");
        assert_eq!(running.stdout.text(), "", "{said}");
    }
}

#[tokio::test]
async fn a_missing_refresh_token_names_the_command_that_writes_it() {
    let (account, _upstream) = account(Faults::default()).await;

    for command in ["serve", "doctor"] {
        let mut command = account.command(usage_proxy(), command);
        command.args(["--admin-listen", "127.0.0.1:9"]);
        let mut running = Running::start(&mut command);

        assert_eq!(running.ended().await.code(), Some(1));
        let told = running.transcript();
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains("`usage-proxy consent` writes it"), "{told}");
    }
}

#[tokio::test]
async fn other_kinds_of_credentials_need_no_sign_in() {
    let (account, _upstream) = account(Faults::default()).await;
    let config = std::fs::read_to_string(account.config()).unwrap();
    let config = config.replace("\"refresh_token\"", "\"client_credentials\"");
    let config: Vec<_> = config
        .lines()
        .filter(|line| !line.starts_with("refresh_token_file"))
        .collect();
    account.write("usage-proxy.toml", &config.join("\n"));

    let mut running = Running::start(&mut consent(&account, &[]));

    assert_eq!(running.ended().await.code(), Some(2));
    let told = running.stderr.text();
    assert!(
        told.contains("upstream.auth.kind: expected \"refresh_token\""),
        "{told}"
    );
}

#[tokio::test]
async fn a_browser_is_opened_where_there_is_a_screen() {
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
    assert_eq!(
        opened.ended().await.code(),
        Some(0),
        "{}",
        opened.transcript()
    );
    assert!(opened.stdout.text().contains("A browser was opened"));

    let printed = on_a_desktop(&["--force", "--no-browser"]);
    browse(&printed).await;
    assert!(!printed.transcript().contains("A browser was opened"));
}

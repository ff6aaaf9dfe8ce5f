//! `usage-proxy doctor`: what is wrong is found, and what to do is said.

use std::os::unix::fs::PermissionsExt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use usage_proxy::simulator::{Faults, SimulatedApi};

use crate::support::{
    Account, DOCUMENTED, Finished, PartnerCenter, Running, Service, Stub, assert_has, free_address,
    run, usage_proxy,
};

const SECRET: &str = "canary-client-secret";

/// Longer than any answer: nothing listens there, unless a test says otherwise.
const NOBODY: &str = "127.0.0.1:9";

/// An account before a simulator that begins with these faults.
async fn account(faults: &str) -> (Account, PartnerCenter) {
    let mut initial = Faults::default();
    for (key, value) in faults.split(' ').filter_map(|fault| fault.split_once('=')) {
        initial.set(key, value).unwrap();
    }
    let upstream = PartnerCenter::with(initial).await;
    let token = upstream.handle.issue_refresh_token();
    (Account::new(upstream.address, SECRET, &token), upstream)
}

/// Runs `doctor --json` for an account, with no service at the admin address.
async fn examined(account: &Account, args: &[&str]) -> Diagnosis {
    examined_beside(account, NOBODY, args).await
}

/// Runs `doctor --json` for an account, with this address of the admin listener.
async fn examined_beside(account: &Account, admin: &str, args: &[&str]) -> Diagnosis {
    let mut command = account.command(usage_proxy(), "doctor");
    let admin = admin.trim_start_matches("http://");
    command.args(["--admin-listen", admin, "--json"]);
    command.args(args);
    Diagnosis::of(run(command).await)
}

/// The exit code of `doctor`, and its document.
#[derive(Debug)]
struct Diagnosis {
    code: Option<i32>,
    document: Value,
}

impl Diagnosis {
    #[track_caller]
    fn of(finished: Finished) -> Self {
        let Finished {
            code,
            stdout,
            stderr,
        } = finished;
        assert!(!stdout.contains(SECRET), "{stdout}");
        assert_eq!(stderr, "", "{stdout}");
        let document = serde_json::from_str(&stdout);
        let document = document.unwrap_or_else(|error| panic!("{error}: {stdout}"));
        Self { code, document }
    }

    /// Asserts the exit code, and that all of this is said of a check.
    #[track_caller]
    fn assert_says(&self, code: i32, check: &str, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_has(&self.of_check(check), parts);
    }

    /// The checks with this verdict.
    fn with(&self, verdict: &str) -> Vec<&str> {
        let checks = self.document["checks"].as_array().unwrap().iter();
        checks
            .filter(|check| check["verdict"] == verdict)
            .map(|check| check["check"].as_str().unwrap())
            .collect()
    }

    /// All that is said of a check, hints too.
    fn of_check(&self, name: &str) -> String {
        let checks = self.document["checks"].as_array().unwrap();
        let of = checks.iter().filter(|check| check["check"] == name);
        of.map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn an_account_in_order_passes_every_check() {
    let (account, _upstream) = account("").await;

    let found = examined(&account, &["--customer", DOCUMENTED]).await;

    found.assert_says(0, "call", &["rows of usage"]);
    assert_eq!(found.document["right"], true);
    assert_eq!(found.with("wrong"), [""; 0]);
    assert_eq!(found.with("note"), [""; 0]);
    let checks = "configuration, client secret, refresh token, token endpoint, Partner Center, \
                  clock, access token, multi-factor proof, call";
    assert_eq!(found.with("right").join(", "), checks);
}

#[tokio::test]
async fn a_rotated_refresh_token_is_saved_for_the_service() {
    let (account, _upstream) = account("strict_rotation=true").await;
    let before = account.refresh_token();

    let first = examined(&account, &[]).await;
    let between = account.refresh_token();
    let second = examined(&account, &[]).await;
    let reply = account.serve().await.usage(DOCUMENTED).await;

    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{second:?}");
    assert_ne!(before, between);
    assert_ne!(between, account.refresh_token());
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn nothing_is_redeemed_while_a_service_runs() {
    let (account, _upstream) = account("strict_rotation=true").await;
    let service = account.serve().await;
    service.usage(DOCUMENTED).await;
    let before = account.refresh_token();

    let found = examined_beside(&account, &service.admin, &[]).await;

    found.assert_says(0, "access token", &["is ready, and redeems by itself"]);
    assert_eq!(account.refresh_token(), before);
    assert_eq!(found.with("skipped"), ["multi-factor proof", "call"]);
    assert_eq!(found.document["right"], Value::Null, "no call was made");
}

#[tokio::test]
async fn a_waiting_service_reports_what_it_waits_for() {
    let (account, _upstream) = account("token_error=invalid_grant").await;
    let service = account.serve().await;
    service.usage(DOCUMENTED).await;

    let found = examined_beside(&account, &service.admin, &[]).await;

    found.assert_says(1, "access token", &["a person must consent again"]);
}

#[tokio::test]
async fn the_service_of_another_account_is_not_mistaken_for_ours() {
    let (theirs, _their_upstream) = account("").await;
    let service = theirs.serve().await;
    service.usage(DOCUMENTED).await;
    let (ours, _our_upstream) = account("").await;
    let before = ours.refresh_token();

    let found = examined_beside(&ours, &service.admin, &[]).await;

    let why = ["another usage-proxy listens there", "--redeem always"];
    found.assert_says(0, "access token", &why);
    assert_eq!(found.document["right"], Value::Null, "no call was made");
    assert_eq!(ours.refresh_token(), before);
}

#[tokio::test]
async fn nothing_is_redeemed_if_it_is_unknown_whether_a_service_runs() {
    let (account, _upstream) = account("").await;
    let before = account.refresh_token();
    // The system accepts connections, but nothing ever answers them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let foreign = Stub::start(|_| Stub::json(200, &json!({"status": "green"}))).await;

    for (address, why) in [
        (
            silent.local_addr().unwrap().to_string(),
            "no answer within 3 s",
        ),
        (foreign, "no usage-proxy"),
    ] {
        let found = examined_beside(&account, &address, &[]).await;

        assert_has(&found.of_check("access token"), &[why, "--redeem always"]);
        assert_eq!(found.document["right"], Value::Null, "{found:?}");
        assert_eq!(account.refresh_token(), before, "{why}");
    }
    let never = examined(&account, &["--redeem", "never"]).await;
    assert_eq!(never.code, Some(0), "{never:?}");
    assert_eq!(account.refresh_token(), before, "--redeem never");
}

#[tokio::test]
async fn a_refusal_is_reported_with_what_to_do() {
    for (faults, wrong, parts) in [
        (
            "mfa_required=true",
            "multi-factor proof, call",
            "900421, consent again, multi-factor",
        ),
        (
            "mfa_missing=true",
            "multi-factor proof",
            "isMfaCompliant, consent again",
        ),
        (
            "token_error=invalid_grant",
            "access token",
            "invalid_grant, 50173, consent again, refresh_token_file",
        ),
        (
            "token_error=invalid_client",
            "access token",
            "7000215, client_secret_file",
        ),
        (
            "status=401 code=900420",
            "call",
            "code 900420, another audience, upstream.auth.resource",
        ),
        ("status=403 code=900308", "call", "code 900308, lack a role"),
        ("status=403 code=2032", "call", "code 2032, no relationship"),
        ("status=302", "call", "answered 302, upstream.base_url"),
        ("body=html", "call", "expected"),
        // It may be over a moment later, and no data came all the same.
        ("status=500", "call", "answered 500"),
    ] {
        let (account, _upstream) = account(faults).await;

        let found = examined(&account, &["--customer", DOCUMENTED]).await;

        assert_eq!(found.code, Some(1), "{faults}: {found:?}");
        let checks = found.with("wrong");
        assert_eq!(checks.join(", "), wrong, "{faults}: {found:?}");
        let said: String = checks.iter().map(|check| found.of_check(check)).collect();
        assert_has(&said, &parts.split(", ").collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_throttle_is_noted_and_not_wrong() {
    let (account, _upstream) = account("status=429 retry_after=57").await;

    let found = examined(&account, &[]).await;

    found.assert_says(0, "call", &["ask again in 57 s"]);
    assert_eq!(found.with("note"), ["call"]);
}

#[tokio::test]
async fn files_are_checked_first() {
    let (account, _upstream) = account("").await;
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(account.path("client-secret"), open).unwrap();
    std::fs::remove_file(account.path("refresh-token")).unwrap();
    let certificate = "server.tls.certificate_file=/missing-certificate";
    let key = "server.tls.key_file=/missing-key";

    let found = examined(&account, &["--set", certificate, "--set", key]).await;

    let wrong = ["refresh token", "server.tls", "access token"];
    assert_eq!(found.with("wrong"), wrong, "{found:?}");
    assert_eq!(found.with("note"), ["client secret"]);
    found.assert_says(1, "client secret", &["chmod 600"]);
    found.assert_says(1, "server.tls", &["missing-certificate"]);
}

#[tokio::test]
async fn the_file_of_the_store_is_checked() {
    let (account, _upstream) = account("").await;
    let url = |file: &str| format!("store.url=sqlite:{}", account.path(file).display());
    let examined = async |file: &str| examined(&account, &["--set", &url(file)]).await;

    let new = examined("usage.db").await;
    let mut serve = account.command(usage_proxy(), "serve");
    let service = Service::start(serve.args(["--set", &url("usage.db")])).await;
    let open = examined("usage.db").await;
    let process = format!("process {} has it open", service.running.id());
    service.end().await;
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(account.path("usage.db"), mode).unwrap();
    let readable = examined("usage.db").await;
    let no_folder = examined("missing/usage.db").await;
    let file = rusqlite::Connection::open(account.path("usage.db")).unwrap();
    file.execute("INSERT INTO schema_version VALUES (999, 0)", [])
        .unwrap();
    drop(file);
    let newer = examined("usage.db").await;

    new.assert_says(
        0,
        "store",
        &["usage.db will be made", "are free", "a durable write takes"],
    );
    open.assert_says(0, "store", &["usage.db has ", &process]);
    readable.assert_says(0, "store", &["chmod 600"]);
    no_folder.assert_says(1, "store", &["No such file", "make the folder"]);
    newer.assert_says(2, "store", &["schema version 999", "newer release"]);
    // The token endpoint and Partner Center are asked all the same.
    assert_eq!(no_folder.with("wrong"), ["store"]);
}

#[tokio::test]
async fn causes_of_unreachable_hosts_are_distinguished() {
    let (account, _upstream) = account("").await;
    let unused_port = format!("upstream.base_url=http://{}", free_address());
    let nowhere = "upstream.base_url=https://no-such-host.invalid";
    let unknown = ["no-such-host.invalid has no address", "DNS"];

    for (url, parts) in [
        (&*unused_port, &["nothing listens there"][..]),
        (nowhere, &unknown),
    ] {
        let found = examined(&account, &["--set", url]).await;

        found.assert_says(1, "Partner Center", parts);
    }
}

#[tokio::test]
async fn a_wrong_clock_is_found_by_that_of_partner_center() {
    let ahead = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let url = Stub::start(move |_| {
        Stub::json(404, &json!({})).replacen("\r\n", &format!("\r\ndate: {date}\r\n"), 1)
    })
    .await;
    let (account, _upstream) = account("").await;

    let found = examined(&account, &["--set", &format!("upstream.base_url={url}")]).await;

    assert!(found.with("wrong").contains(&"clock"), "{found:?}");
    let advice = ["behind that of the Partner Center", "timedatectl"];
    found.assert_says(1, "clock", &advice);
}

#[tokio::test]
async fn the_claims_of_a_readable_token_are_checked() {
    let (account, upstream) = account("").await;
    let write_token = |claims: Value| {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        account.write("token", &format!("e30.{payload}.canary-signature"));
    };
    account.write(
        "usage-proxy.toml",
        &format!(
            "[upstream]\nbase_url = \"http://{}\"\n[upstream.auth]\nkind = \"token_file\"\n\
             token_file = \"{}\"\n",
            upstream.address,
            account.path("token").display()
        ),
    );

    write_token(json!({"aud": "https://graph.microsoft.com", "exp": 1, "roles": ["x"]}));
    let app_only = examined(&account, &[]).await;
    write_token(json!({"scp": "user_impersonation", "amr": ["pwd"]}));
    let without_proof = examined(&account, &["--set", "upstream.attempt_timeout=2s"]).await;

    let said = app_only.of_check("access token");
    let expired = "has expired, on 1970-01-01T00:00:01Z";
    let source = r#"upstream.source = \"commercial\""#;
    assert_has(&said, &["https://graph.microsoft.com", expired, source]);
    assert!(!app_only.document.to_string().contains("canary-signature"));
    let right = app_only.with("right");
    assert!(right.contains(&"multi-factor proof"), "{app_only:?}");
    // The simulator knows no such token, and says as Partner Center would that it carries proof.
    let wrong = without_proof.with("wrong");
    assert!(wrong.contains(&"call"), "{without_proof:?}");
    assert_has(&without_proof.of_check("call"), &["800001"]);
}

#[tokio::test]
async fn a_wrong_configuration_has_an_exit_code_of_its_own() {
    let (account, _upstream) = account("").await;
    account.write(
        "callers.toml",
        "[[caller]]\nname = \"a\"\nkey_sha256 = [\"canary-pasted-key\"]\ncustomers = []\nscopes = []\n",
    );
    let callers = format!("callers.file={}", account.path("callers.toml").display());
    let keys = ["--set", "cache.fresh_fro=5m", "--set", "log.requests=some"];

    let keys = examined(&account, &keys).await;
    let callers = examined(&account, &["--set", &callers]).await;
    let mut wrong_use = account.command(usage_proxy(), "doctor");
    wrong_use.args(["--customer", "contoso"]);
    let wrong_use = run(wrong_use).await;

    keys.assert_says(2, "configuration", &["cache.fresh_fro", "log.requests"]);
    assert_eq!(callers.code, Some(2));
    let text = callers.document.to_string();
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(wrong_use.code, Some(2));
}

#[tokio::test]
async fn a_person_gets_a_line_for_each_check_and_hints_beneath() {
    let (account, _upstream) = account("token_error=invalid_grant").await;
    let mut command = account.command(usage_proxy(), "doctor");
    command.args(["--admin-listen", NOBODY]).env("LC_ALL", "C");

    let printed = run(command).await.stdout;

    assert!(printed.is_ascii(), "{printed}");
    assert_has(
        &printed,
        &[
            "+ configuration      usage by the insights call, as App+User, by a refresh token\n",
            "x access token       invalid_grant [50173]",
            "> the refresh token has expired or was revoked",
            "- call               there is no access token to call with\n",
            "\n1 thing is wrong, 2 were not looked at.\n",
        ],
    );
}

#[tokio::test]
async fn a_redemption_that_has_begun_is_completed_despite_a_signal() {
    for (signal, code) in [("INT", 130), ("TERM", 1), ("HUP", 1), ("QUIT", 1)] {
        let (account, upstream) = account("strict_rotation=true").await;
        let before = account.refresh_token();
        upstream.handle.hold_tokens();
        let mut command = account.command(usage_proxy(), "doctor");
        command.args(["--admin-listen", NOBODY]);
        let mut doctor = Running::start(&mut command);
        upstream.wait_for_calls(SimulatedApi::Token, 1).await;

        doctor.signal(signal);
        doctor.stderr.line_with("ending").await;
        upstream.handle.release_tokens();

        assert_eq!(doctor.ended().await.code(), Some(code), "{signal}");
        let after = account.refresh_token();
        assert_ne!(after, before, "{signal}");
        assert_eq!(upstream.handle.live_refresh_tokens(), [after], "{signal}");
    }
}

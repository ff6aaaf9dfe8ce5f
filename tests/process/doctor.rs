//! `usage-proxy doctor`: what is wrong is found, and what to do is said.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use usage_proxy::simulator::{Faults, SimulatedApi, SimulatorOptions};

use crate::support::{Account, PartnerCenter, Running, Service, Stub, usage_proxy};

const DOCUMENTED_CUSTOMER: &str = "4d3cf487-70f4-4e1e-9ff1-b2bfce8d9f04";
const SECRET: &str = "canary-client-secret";

/// An account of a stand-in that begins with these faults.
async fn account(faults: &[(&str, &str)]) -> (Account, PartnerCenter) {
    let mut held = Faults::default();
    for (key, value) in faults {
        held.set(key, value).unwrap();
    }
    let upstream = PartnerCenter::start(SimulatorOptions {
        faults: held,
        ..SimulatorOptions::default()
    })
    .await;
    let token = upstream.handle.issue_refresh_token();
    (Account::new(upstream.address, SECRET, &token), upstream)
}

/// Examined as a program would have it, on a thread of its own, since the stand-in needs this one.
async fn examined(account: &Account, args: &[&str]) -> Diagnosis {
    let mut command = account.command(usage_proxy(), "doctor");
    // A port that nobody listens on, unless a test says otherwise.
    command.args(["--admin-listen", "127.0.0.1:9", "--json"]);
    command.args(args);
    Diagnosis::of(run(command).await)
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// What doctor found.
#[derive(Debug)]
struct Diagnosis {
    code: Option<i32>,
    document: Value,
}

// === impl Diagnosis ===

impl Diagnosis {
    fn of(output: Output) -> Self {
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(!told.contains(SECRET), "{told}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{told}");
        Self {
            code: output.status.code(),
            document: serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}")),
        }
    }

    /// The checks with this verdict.
    fn with(&self, verdict: &str) -> Vec<&str> {
        let checks = self.document["checks"].as_array().unwrap();
        let has = |check: &&Value| check["verdict"] == verdict;
        checks
            .iter()
            .filter(has)
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
async fn an_account_in_order_is_told_to_be() {
    let (account, upstream) = account(&[]).await;

    let found = examined(&account, &["--customer", DOCUMENTED_CUSTOMER]).await;

    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(found.document["right"], true);
    assert_eq!(found.with("wrong"), [""; 0]);
    assert_eq!(found.with("note"), [""; 0]);
    assert_eq!(
        found.with("right"),
        [
            "configuration",
            "client secret",
            "refresh token",
            "token endpoint",
            "Partner Center",
            "clock",
            "access token",
            "multi-factor proof",
            "call",
        ]
    );
    assert!(
        found.of_check("call").contains("rows of usage"),
        "{found:?}"
    );
    drop(upstream);
}

#[tokio::test]
async fn a_refresh_token_that_was_replaced_is_in_its_file_for_the_service() {
    let (account, _upstream) = account(&[("strict_rotation", "true")]).await;
    let before = account.refresh_token();

    let first = examined(&account, &[]).await;
    let between = account.refresh_token();
    let second = examined(&account, &[]).await;
    let service = Service::start(&mut account.command(usage_proxy(), "serve")).await;
    let reply = service.usage(DOCUMENTED_CUSTOMER).await;

    assert_eq!(
        (first.code, second.code),
        (Some(0), Some(0)),
        "{first:?} {second:?}"
    );
    assert_ne!(before, between);
    assert_ne!(between, account.refresh_token());
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn nothing_is_redeemed_beside_a_service_that_runs() {
    let (account, upstream) = account(&[("strict_rotation", "true")]).await;
    let service = Service::start(&mut account.command(usage_proxy(), "serve")).await;
    service.usage(DOCUMENTED_CUSTOMER).await;
    let before = account.refresh_token();
    let admin = service.admin.trim_start_matches("http://").to_owned();

    let mut command = account.command(usage_proxy(), "doctor");
    command.args(["--admin-listen", &admin, "--json"]);
    let found = Diagnosis::of(run(command).await);

    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(account.refresh_token(), before);
    let told = found.of_check("access token");
    assert!(told.contains("is ready, and redeems by itself"), "{told}");
    assert_eq!(found.with("skipped"), ["multi-factor proof", "call"]);
    assert_eq!(found.document["right"], Value::Null, "no call was made");
    drop(upstream);
}

#[tokio::test]
async fn a_service_that_waits_is_believed_to() {
    let (account, _upstream) = account(&[("token_error", "invalid_grant")]).await;
    let service = Service::start(&mut account.command(usage_proxy(), "serve")).await;
    service.usage(DOCUMENTED_CUSTOMER).await;
    let admin = service.admin.trim_start_matches("http://").to_owned();

    let mut command = account.command(usage_proxy(), "doctor");
    command.args(["--admin-listen", &admin, "--json"]);
    let found = Diagnosis::of(run(command).await);

    assert_eq!(found.code, Some(1), "{found:?}");
    let told = found.of_check("access token");
    assert!(told.contains("a person must consent again"), "{told}");
}

#[tokio::test]
async fn another_account_s_usage_proxy_is_not_taken_for_ours() {
    let (theirs, _their_upstream) = account(&[]).await;
    let service = Service::start(&mut theirs.command(usage_proxy(), "serve")).await;
    service.usage(DOCUMENTED_CUSTOMER).await;
    let admin = service.admin.trim_start_matches("http://").to_owned();
    let (ours, _our_upstream) = account(&[]).await;
    let before = ours.refresh_token();

    let mut command = ours.command(usage_proxy(), "doctor");
    command.args(["--admin-listen", &admin, "--json"]);
    let found = Diagnosis::of(run(command).await);

    let told = found.of_check("access token");
    assert!(told.contains("another usage-proxy listens there"), "{told}");
    assert!(told.contains("--redeem always"), "{told}");
    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(found.document["right"], Value::Null, "no call was made");
    assert_eq!(ours.refresh_token(), before);
}

#[tokio::test]
async fn nothing_is_redeemed_where_nobody_knows_whether_a_service_runs() {
    let (account, _upstream) = account(&[]).await;
    let before = account.refresh_token();
    // Connections are accepted by the system, and nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let foreign = Stub::start(|_| Stub::json(200, &json!({"status": "green"}))).await;
    let foreign_address = foreign.trim_start_matches("http://").to_owned();

    for (address, why) in [
        (silent_address, "no answer within 3 s"),
        (foreign_address, "no usage-proxy"),
    ] {
        let mut command = account.command(usage_proxy(), "doctor");
        command.args(["--admin-listen", &address, "--json"]);
        let found = Diagnosis::of(run(command).await);

        let told = found.of_check("access token");
        assert!(told.contains(why), "{told}");
        assert!(told.contains("--redeem always"), "{told}");
        assert_eq!(found.document["right"], Value::Null, "{found:?}");
        assert_eq!(account.refresh_token(), before, "{why}");
    }
    drop(silent);
}

#[tokio::test]
async fn nothing_is_redeemed_by_those_who_want_it_so() {
    let (account, _upstream) = account(&[]).await;
    let before = account.refresh_token();

    let found = examined(&account, &["--redeem", "never"]).await;

    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(account.refresh_token(), before);
}

#[tokio::test]
async fn what_partner_center_and_the_token_endpoint_refuse_is_told_with_what_to_do() {
    for (faults, wrong, parts) in [
        (
            &[("mfa_required", "true")][..],
            &["multi-factor proof", "call"][..],
            &["900421", "consent again", "multi-factor"][..],
        ),
        (
            &[("mfa_missing", "true")],
            &["multi-factor proof"],
            &["isMfaCompliant", "consent again"],
        ),
        (
            &[("token_error", "invalid_grant")],
            &["access token"],
            &[
                "invalid_grant",
                "50173",
                "consent again",
                "refresh_token_file",
            ],
        ),
        (
            &[("token_error", "invalid_client")],
            &["access token"],
            &["7000215", "client_secret_file"],
        ),
        (
            &[("status", "401"), ("code", "900420")],
            &["call"],
            &["code 900420", "another audience", "upstream.auth.resource"],
        ),
        (
            &[("status", "403"), ("code", "900308")],
            &["call"],
            &["code 900308", "lack a role"],
        ),
        (
            &[("status", "403"), ("code", "2032")],
            &["call"],
            &["code 2032", "no relationship"],
        ),
        (
            &[("status", "302")],
            &["call"],
            &["answered 302", "upstream.base_url"],
        ),
        (&[("body", "html")], &["call"], &["expected"]),
        // It may be over a moment later, and no data came all the same.
        (&[("status", "500")], &["call"], &["answered 500"]),
    ] {
        let (account, _upstream) = account(faults).await;

        let found = examined(&account, &["--customer", DOCUMENTED_CUSTOMER]).await;

        assert_eq!(found.code, Some(1), "{faults:?}: {found:?}");
        assert_eq!(found.with("wrong"), wrong, "{faults:?}: {found:?}");
        let told: String = wrong.iter().map(|check| found.of_check(check)).collect();
        for part in parts {
            assert!(told.contains(part), "{faults:?}: {part} in {told}");
        }
    }
}

#[tokio::test]
async fn a_throttle_is_worth_a_look_and_no_fault_of_ours() {
    let (account, _upstream) = account(&[("status", "429"), ("retry_after", "57")]).await;

    let found = examined(&account, &[]).await;

    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(found.with("note"), ["call"]);
    let told = found.of_check("call");
    assert!(told.contains("ask again in 57 s"), "{told}");
}

#[tokio::test]
async fn files_are_looked_at_before_anybody_is_asked() {
    let (account, _upstream) = account(&[]).await;
    let path = |name: &str| account.path(name).display().to_string();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(account.path("client-secret"), open).unwrap();
    std::fs::remove_file(account.path("refresh-token")).unwrap();
    let certificate = format!(
        "server.tls.certificate_file={}",
        path("missing-certificate")
    );
    let key = format!("server.tls.key_file={}", path("missing-key"));

    let found = examined(&account, &["--set", &certificate, "--set", &key]).await;

    assert_eq!(found.code, Some(1), "{found:?}");
    assert_eq!(
        found.with("wrong"),
        ["refresh token", "server.tls", "access token"],
        "{found:?}"
    );
    assert_eq!(found.with("note"), ["client secret"]);
    assert!(
        found.of_check("client secret").contains("chmod 600"),
        "{found:?}"
    );
    assert!(
        found.of_check("server.tls").contains("missing-certificate"),
        "{found:?}"
    );
}

#[tokio::test]
async fn hosts_that_cannot_be_reached_are_told_apart() {
    let (account, _upstream) = account(&[]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("upstream.base_url=http://{}", free.local_addr().unwrap());
    drop(free);
    let nowhere = "upstream.base_url=https://no-such-host.invalid";

    let refused = examined(&account, &["--set", &nobody]).await;
    let unknown = examined(&account, &["--set", nowhere]).await;

    let told = refused.of_check("Partner Center");
    assert!(told.contains("nothing listens there"), "{told}");
    let told = unknown.of_check("Partner Center");
    assert!(
        told.contains("no-such-host.invalid has no address"),
        "{told}"
    );
    assert!(told.contains("DNS"), "{told}");
    for found in [refused, unknown] {
        assert_eq!(found.code, Some(1));
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_found_by_theirs() {
    let ahead = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let date = ahead.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let url = Stub::start(move |_| {
        Stub::json(404, &json!({})).replacen("\r\n", &format!("\r\ndate: {date}\r\n"), 1)
    })
    .await;
    let (account, _upstream) = account(&[]).await;

    let found = examined(&account, &["--set", &format!("upstream.base_url={url}")]).await;

    assert_eq!(found.code, Some(1));
    assert!(found.with("wrong").contains(&"clock"), "{found:?}");
    let told = found.of_check("clock");
    assert!(told.contains("behind that of the Partner Center"), "{told}");
    assert!(told.contains("timedatectl"), "{told}");
}

#[tokio::test]
async fn a_token_that_can_be_read_is_taken_at_its_word() {
    let (account, upstream) = account(&[]).await;
    let token = |claims: Value| {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
        format!("e30.{payload}.canary-signature")
    };
    account.write(
        "token",
        &token(json!({"aud": "https://graph.microsoft.com", "exp": 1, "roles": ["x"]})),
    );
    account.write(
        "usage-proxy.toml",
        &format!(
            "[upstream]\nbase_url = \"http://{}\"\n[upstream.auth]\nkind = \"token_file\"\n\
             token_file = \"{}\"\n",
            upstream.address,
            account.path("token").display()
        ),
    );

    let app_only = examined(&account, &[]).await;
    account.write(
        "token",
        &token(json!({"scp": "user_impersonation", "amr": ["pwd"]})),
    );
    let without_proof = examined(&account, &["--set", "upstream.attempt_timeout=2s"]).await;

    let told = app_only.of_check("access token");
    for part in [
        "https://graph.microsoft.com",
        "has expired, on 1970-01-01T00:00:01Z",
        "upstream.source = \\\"commercial\\\"",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!app_only.document.to_string().contains("canary-signature"));
    assert!(
        app_only.with("right").contains(&"multi-factor proof"),
        "{app_only:?}"
    );
    // The stand-in knows no such token, and says as Partner Center would that it carries proof.
    assert!(
        without_proof.with("wrong").contains(&"call"),
        "{without_proof:?}"
    );
    assert!(
        without_proof.of_check("call").contains("800001"),
        "{without_proof:?}"
    );
}

#[tokio::test]
async fn a_wrong_configuration_has_an_exit_code_of_its_own() {
    let (account, _upstream) = account(&[]).await;
    account.write(
        "callers.toml",
        "[[caller]]\nname = \"a\"\nkey_sha256 = [\"canary-pasted-key\"]\ncustomers = []\nscopes = []\n",
    );
    let callers = format!("callers.file={}", account.path("callers.toml").display());

    let keys = examined(
        &account,
        &["--set", "cache.fresh_fro=5m", "--set", "log.requests=some"],
    )
    .await;
    let callers = examined(&account, &["--set", &callers]).await;
    let mut wrong_use = account.command(usage_proxy(), "doctor");
    wrong_use.args(["--customer", "contoso"]);
    let wrong_use = run(wrong_use).await;

    assert_eq!(keys.code, Some(2));
    let told = keys.of_check("configuration");
    assert!(
        told.contains("cache.fresh_fro") && told.contains("log.requests"),
        "{told}"
    );
    assert_eq!(callers.code, Some(2));
    assert!(
        !callers.document.to_string().contains("canary"),
        "{callers:?}"
    );
    assert_eq!(wrong_use.status.code(), Some(2));
}

#[tokio::test]
async fn a_person_gets_a_line_for_each_check_and_hints_beneath() {
    let (account, _upstream) = account(&[("token_error", "invalid_grant")]).await;
    let mut command = account.command(usage_proxy(), "doctor");
    command
        .args(["--admin-listen", "127.0.0.1:9"])
        .env("LC_ALL", "C");

    let output = run(command).await;

    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.is_ascii(), "{told}");
    for line in [
        "+ configuration      usage by the insights call, as App+User, by a refresh token\n",
        "x access token       invalid_grant [50173]",
        "> the refresh token has expired or was revoked",
        "- call               there is no access token to ask with\n",
        "\n1 thing is wrong, 2 were not looked at.\n",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
}

#[tokio::test]
async fn a_redemption_that_has_begun_is_carried_through_whoever_interrupts_it() {
    for (signal, code) in [("INT", 130), ("TERM", 1), ("HUP", 1), ("QUIT", 1)] {
        let (account, upstream) = account(&[("strict_rotation", "true")]).await;
        let before = account.refresh_token();
        upstream.handle.hold_tokens();
        let mut command = account.command(usage_proxy(), "doctor");
        command.args(["--admin-listen", "127.0.0.1:9"]);
        let mut doctor = Running::start(&mut command);
        upstream
            .handle
            .wait_for_requests(SimulatedApi::Token, 1)
            .await;

        doctor.signal(signal);
        doctor.stderr.line_with("ending").await;
        upstream.handle.release_tokens();

        assert_eq!(doctor.ended().await.code(), Some(code), "{signal}");
        let after = account.refresh_token();
        assert_ne!(after, before, "{signal}");
        assert_eq!(upstream.handle.live_refresh_tokens(), [after], "{signal}");
    }
}

//! The store in a PostgreSQL database.

use serde_json::Value;
use usage_proxy::simulator::{Faults, SimulatedApi};

use crate::{
    postgres_server::{TestDatabase, certificate},
    store::{answer_without_upstream, wait_until},
    support::{Account, PartnerCenter, assert_has, get, run, usage_proxy},
};

const ENCRYPTION_KEY: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

const OTHER_KEY: &str = "WllYV1ZVVFNSUVBPTk1MS0pJSEdGRURDQkF6eXh3dnU=";

pub(crate) fn with_database(account: Account, url: &str, more: &str) -> Account {
    let key = account.folder().join("encryption-key");
    std::fs::write(&key, ENCRYPTION_KEY).unwrap();
    let store = format!(
        "[store]\nurl = \"{url}\"\nencryption_key_file = \"{}\"\nflush_within = \"100ms\"\n{more}\n[admin]",
        key.display()
    );
    account.reconfigure("[admin]", &store);
    account
}

#[tokio::test]
async fn replicas_and_a_restarted_service_serve_what_one_stored() {
    let database = TestDatabase::create();
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), &database.url(), "");
    let customer = partner_center.handle.customers()[0];
    let one = account.serve().await;
    let other = account.serve().await;

    let stored = one.usage(customer).await.body;
    let rows = "SELECT count(*) FROM usage_proxy.newest_usage";
    wait_until(async || database.psql(rows) != "0").await;
    assert_eq!(
        answer_without_upstream(&partner_center, &other, customer).await,
        stored
    );
    one.end().await;
    other.end().await;
    let restarted = account.serve().await;

    let body = answer_without_upstream(&partner_center, &restarted, customer).await;
    assert_eq!(body, stored);
    let usage: Value = serde_json::from_str(&stored).unwrap();
    let date = usage["processedDate"].as_str().unwrap();
    let history = format!(
        "{}/v1/customers/{customer}/usage/history?from={date}&to={date}",
        restarted.api
    );
    let history = get(&history, &[]).await;
    assert_eq!(history.status, 200, "{}", history.body);
    assert_has(&history.body, &["licensesQualified"]);
    assert!(restarted.metric("usage_proxy_store_bytes").await > 0.0);
    restarted.end().await;
}

#[tokio::test]
async fn a_database_of_a_newer_release_stops_the_start() {
    let database = TestDatabase::create();
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), &database.url(), "");
    account.serve().await.end().await;
    database.psql("INSERT INTO usage_proxy.schema_version VALUES (999, 0)");

    let ended = run(account.command(usage_proxy(), "serve")).await;

    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_has(&ended.stderr, &["store.url", "999", "newer release"]);
}

#[tokio::test]
async fn a_service_whose_database_is_gone_serves_without_it_and_stores_later() {
    let database = TestDatabase::create();
    let rename = |from: &str, to: &str| {
        TestDatabase::administer(&format!("ALTER DATABASE {from} RENAME TO {to}"));
    };
    let elsewhere = format!("{}_elsewhere", database.name());
    rename(database.name(), &elsewhere);
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), &database.url(), "");

    let service = account.serve().await;
    let answer = service.usage(partner_center.handle.customers()[0]).await;
    let ready = service.admin_get("/readyz").await;
    rename(&elsewhere, database.name());

    assert_eq!((answer.status, ready.status), (200, 200), "{}", ready.body);
    assert_has(&ready.body, &["does not exist"]);
    let rows = "SELECT count(*) > 0 FROM pg_class WHERE relname = 'newest_usage'";
    wait_until(async || database.psql(rows) == "t").await;
    let rows = "SELECT count(*) FROM usage_proxy.newest_usage";
    wait_until(async || database.psql(rows) != "0").await;
    service.end().await;
}

/// The answer of `doctor` about the store, and its advice.
async fn diagnosis(url: &str, more: &str) -> String {
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), url, more);
    let mut command = account.command(usage_proxy(), "doctor");
    command.args(["--admin-listen", "127.0.0.1:9", "--redeem", "never"]);
    let said = run(command).await.stdout;
    let store = said.lines().skip_while(|line| !line.contains("store"));
    store.take(4).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_doctor_explains_what_keeps_a_database_from_being_used() {
    let database = TestDatabase::create();
    let ca = |name: &str| format!("ca_file = \"{}\"", certificate(name).display());
    let other = database.url().replace(database.name(), "missing");

    for (url, more, expected) in [
        (
            database.url(),
            String::new(),
            ["PostgreSQL 1", "will create its schema"],
        ),
        (
            database.tls_url("postgres"),
            ca("ca"),
            ["over TLS", "will create its schema"],
        ),
        (
            database.tls_url("postgres"),
            ca("self"),
            ["UnknownIssuer", "store.ca_file"],
        ),
        (
            database.self_signed_url(),
            ca("self"),
            ["CaUsedAsEndEntity", "a CA's own"],
        ),
        (
            database.tls_url("nobody"),
            ca("ca"),
            ["password missing", "store.password_file"],
        ),
        (other, String::new(), ["does not exist", "CREATE DATABASE"]),
    ] {
        let said = diagnosis(&url, &more).await;

        assert_has(&said, &expected);
    }
}

#[tokio::test]
async fn a_pooler_that_passes_no_notifications_on_is_named_until_another_url_is_set() {
    let database = TestDatabase::create();
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), &database.pooler_url(), "");
    let flags = ["--admin-listen", "127.0.0.1:9", "--redeem", "never"];
    let advice = ["do not arrive through store.url", "set store.listen_url"];

    let (_, deaf) = output(&account, "doctor", &flags).await;
    let service = account.serve().await;
    let logged = service
        .running
        .stderr
        .line_with("set store.listen_url")
        .await;
    let listen_url = format!("listen_url = \"{}\"\nflush_within", database.url());
    account.reconfigure("flush_within", &listen_url);
    let (_, hearing) = output(&account, "doctor", &flags).await;
    let (_, checked) = output(&account, "check-config", &[]).await;
    let elsewhere = format!("listen_url = \"{}", database.pooler_url());
    account.reconfigure(&format!("listen_url = \"{}", database.url()), &elsewhere);
    let (code, still_deaf) = output(&account, "doctor", &flags).await;

    assert_has(&deaf, &advice);
    assert_has(&logged, &advice);
    assert_has(&hearing, &["what other replicas do arrives at once"]);
    assert_has(&checked, &["listen_url = ", &database.url()]);
    let problem = "do not arrive through store.listen_url";
    assert_has(&still_deaf, &[problem, "the database of store.url"]);
    assert_eq!(code, Some(1));
    service.end().await;
}

/// The output of a command with this configuration, with single spaces.
async fn output(account: &Account, name: &str, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = account.command(usage_proxy(), name);
    command.args(flags);
    let ended = run(command).await;
    let said = ended.stdout + &ended.stderr;
    let words: Vec<_> = said.split_whitespace().collect();
    (
        ended.code,
        words
            .join(" ")
            .replace("openssl rand - base64", "openssl rand -base64"),
    )
}

#[tokio::test]
async fn the_doctor_uses_shared_tokens_and_explains_a_lost_key() {
    let database = TestDatabase::create();
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), &database.url(), "");
    let elsewhere = ["--admin-listen", "127.0.0.1:9"];
    let service = account.serve().await;
    let stored = "SELECT count(*) FROM pg_class WHERE relname = 'token'";
    wait_until(async || database.psql(stored) == "1").await;
    let stored = "SELECT count(*) FROM usage_proxy.token";
    wait_until(async || database.psql(stored) == "1").await;
    service.end().await;
    let file = account.refresh_token();
    let redeemed = || partner_center.handle.request_count(SimulatedApi::Token);
    let at_start = redeemed();

    let (_, healthy) = output(&account, "doctor", &elsewhere).await;
    let after_doctor = redeemed();
    let key_file = account.folder().join("encryption-key");
    std::fs::write(&key_file, format!("{OTHER_KEY}\n{ENCRYPTION_KEY}")).unwrap();
    let (_, rotating) = output(&account, "doctor", &elsewhere).await;
    std::fs::write(&key_file, OTHER_KEY).unwrap();
    let (code, lost) = output(&account, "doctor", &elsewhere).await;
    database.psql("DELETE FROM usage_proxy.token");
    let (_, deleted) = output(&account, "doctor", &elsewhere).await;

    assert_has(&healthy, &["encrypted with the key", "replicas share one"]);
    assert_eq!((at_start, after_doctor), (1, 1));
    assert_has(&rotating, &["keep this key", "replicas share one"]);
    let advice = [
        "cannot be decrypted",
        "store.encryption_key_file",
        "usage-proxy consent",
        "DELETE FROM usage_proxy.token WHERE name = 'refresh_token/",
    ];
    assert_has(&lost, &advice);
    assert_eq!(code, Some(1));
    assert_has(&deleted, &["there are none yet"]);
    assert_eq!(account.refresh_token(), file, "it is only read");
}

#[tokio::test]
async fn a_refresh_token_needs_a_key_to_be_stored() {
    let database = TestDatabase::create();
    let partner_center = PartnerCenter::with(Faults::default()).await;
    let account = with_database(partner_center.account(), &database.url(), "");
    let key_file = account.folder().join("encryption-key");
    let rejected = async |words: &[&str]| {
        for command in ["check-config", "serve"] {
            let (code, said) = output(&account, command, &[]).await;
            assert_eq!(code, Some(2), "{command}: {said}");
            assert_has(&said, words);
        }
    };

    std::fs::write(&key_file, format!("{ENCRYPTION_KEY}\ns3cret\n")).unwrap();
    rejected(&[
        "store.encryption_key_file",
        "line 2",
        "openssl rand -base64 32",
    ])
    .await;
    let (_, said) = output(&account, "doctor", &["--redeem", "never"]).await;
    assert_has(&said, &["line 2: expected 32 bytes in base64"]);
    assert!(!said.contains("s3cret"), "{said}");
    account.reconfigure("encryption_key_file", "# encryption_key_file");
    rejected(&[
        "store.encryption_key_file: missing",
        "openssl rand -base64 32",
    ])
    .await;
}

//! Tokens of replicas on one PostgreSQL store: one redeems for all, and the refresh token's file is only
//! read.

use std::fs;

use tempfile::NamedTempFile;
use usage_proxy::config::AuthConfig;

use crate::{
    replicas::{STEP, postgres_server::TestDatabase, wait_for_released_leases},
    support::{ENCRYPTION_KEY, prelude::*},
};

/// The lifetime of the simulator's access tokens.
const LIFETIME: Duration = Duration::from_secs(3_599);

/// The time between two attempts to store a refresh token.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// The pause before a replica looks again whether another has a token.
const PAUSE: Duration = Duration::from_millis(50);

const SUCCESSES: &str = r#"usage_proxy_token_refresh_total{result="success"}"#;

const UNSAVED: &str = "usage_proxy_refresh_token_unsaved";

const OTHER_KEY: &str = "WllYV1ZVVFNSUVBPTk1MS0pJSEdGRURDQkF6eXh3dnU=";

fn replica(database: &TestDatabase) -> Builder {
    TestApp::builder()
        .set("store.url", &database.url())
        .set("upstream.retries", "0")
        // Other replicas' answers would take the place of calls.
        .set("cache.fresh_for", "1ms")
        .set("cache.stale_while_revalidate", "0s")
}

fn in_file(app: &TestApp) -> String {
    fs::read_to_string(app.refresh_token_file()).unwrap()
}

/// Ends a service, as a rolling update does.
async fn end(app: TestApp) {
    app.shutdown.drain();
    in_time(app.running).await.unwrap();
}

impl TestApp {
    /// Lets the access token become old, and waits for the next one.
    async fn renew_token(&self) {
        let before = self.metric(SUCCESSES).await;
        self.advance(LIFETIME.mul_f64(0.8));
        self.wait_for_metric(SUCCESSES, before + 1.0).await;
    }
}

#[tokio::test]
async fn one_replica_redeems_for_all() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let file = in_file(&one);
    let two = replica(&database)
        .beside(&one)
        .refresh_token(&file)
        .start()
        .await;
    let at_start = one.calls(SimulatedApi::Token);

    one.simulator.hold_tokens();
    one.advance(LIFETIME.mul_f64(0.8));
    one.wait_for_calls(SimulatedApi::Token, 2).await;
    in_time(one.clock.wait_for_sleepers_until(1, PAUSE)).await;
    one.simulator.release_tokens();
    wait_for_released_leases(&database).await;
    one.advance(PAUSE);
    for app in [&one, &two] {
        app.wait_for_metric(SUCCESSES, 2.0).await;
    }
    let replies = [one.native(customer(0)).await, two.native(customer(1)).await];

    assert_eq!((at_start, one.calls(SimulatedApi::Token)), (1, 2));
    assert_eq!(replies.map(|reply| reply.status), [200, 200]);
    let calls = one.calls_made(SimulatedApi::Insights);
    let [first, second] = &calls[..] else {
        panic!("{calls:?}");
    };
    let token = first.header("authorization").unwrap();
    assert_eq!(second.header("authorization").unwrap(), token);
    assert_eq!([in_file(&one), in_file(&two)], [file.clone(), file]);
    let stored = one.simulator.live_refresh_tokens();
    assert_eq!(stored.len(), 1);
    for secret in [&stored[0], token.trim_start_matches("Bearer ")] {
        let text = database.psql("SELECT encode(refresh_token, 'escape'), encode(access_token, 'escape') FROM usage_proxy.token");
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_by_one_and_taken_by_the_other() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let two = replica(&database)
        .beside(&one)
        .refresh_token(in_file(&one))
        .start()
        .await;
    one.simulator.revoke_access_tokens();

    let replies = [one.native(customer(0)).await, two.native(customer(1)).await];

    assert_eq!(replies.map(|reply| reply.status), [200, 200]);
    assert_eq!(one.calls(SimulatedApi::Token), 2);
}

#[tokio::test]
async fn a_new_replica_with_an_old_secret_uses_the_stored_refresh_token() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let old = in_file(&one);
    one.renew_token().await;
    let two = replica(&database).beside(&one).refresh_token(&old);
    end(one).await;

    let two = two.start().await;
    let taken = two.calls(SimulatedApi::Token);
    two.renew_token().await;

    assert_eq!((taken, two.calls(SimulatedApi::Token)), (2, 3));
    assert_eq!(two.simulator.reused_refresh_tokens(), 0);
    assert_eq!(in_file(&two), old);
    assert_eq!(two.metric(UNSAVED).await, 0.0);
}

#[tokio::test]
async fn a_new_token_of_a_person_replaces_the_stored_one_for_all() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let [before] = &one.simulator.live_refresh_tokens()[..] else {
        panic!("there is one");
    };
    let before = before.clone();

    // It has a new token in its file.
    let two = replica(&database).beside(&one).start().await;
    let of_person = in_file(&two);
    let live = two.simulator.live_refresh_tokens();
    end(two).await;
    // It takes the token that the other got, and redeems the next time.
    one.renew_token().await;
    one.renew_token().await;
    let three = replica(&database)
        .beside(&one)
        .refresh_token(&of_person)
        .start()
        .await;

    assert!(
        live.contains(&before) && !live.contains(&of_person),
        "{live:?}"
    );
    // What came from the person's token was redeemed, and not the one before.
    let live = one.simulator.live_refresh_tokens();
    assert!(live.contains(&before) && live.len() == 2, "{live:?}");
    assert_eq!(one.simulator.reused_refresh_tokens(), 0);
    assert_eq!(three.calls(SimulatedApi::Token), 3);
}

#[tokio::test]
async fn a_refused_token_of_the_file_does_not_replace_the_stored_one() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let wrong = one.simulator.issue_refresh_token();
    one.simulator.revoke_refresh_token(&wrong);

    let two = replica(&database)
        .beside(&one)
        .refresh_token(&wrong)
        .start()
        .await;
    end(one).await;
    two.renew_token().await;

    assert_eq!(two.native(customer(0)).await.status, 200);
    // The wrong token was sent once.
    let sent = two.calls_made(SimulatedApi::Token);
    let refused = sent
        .iter()
        .filter(|call| call.status == Some(StatusCode::BAD_REQUEST));
    assert_eq!(refused.count(), 1, "{sent:?}");
}

#[tokio::test]
async fn without_the_database_a_replica_redeems_by_itself_and_stores_later() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let old = in_file(&one);
    let allow = |allowed: bool| {
        TestDatabase::administer(&format!(
            "ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}",
            database.name()
        ));
    };

    allow(false);
    TestDatabase::administer(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        database.name()
    ));
    one.renew_token().await;
    one.wait_for_metric(UNSAVED, 1.0).await;
    let meanwhile = one.native(customer(0)).await;
    one.renew_token().await;
    allow(true);
    wait_until("the store works again", async || {
        one.pass(STEP).await;
        one.metric("usage_proxy_store_up").await == 1.0
    })
    .await;
    wait_until("the refresh token is stored", async || {
        one.pass(SAVE_INTERVAL).await;
        one.metric(UNSAVED).await == 0.0
    })
    .await;
    let two = replica(&database).beside(&one).refresh_token(&old);
    end(one).await;
    let two = two.start().await;
    two.renew_token().await;

    assert_eq!(meanwhile.status, 200);
    assert_eq!(in_file(&two), old);
    assert_eq!(two.simulator.reused_refresh_tokens(), 0);
    assert_eq!(two.simulator.live_refresh_tokens().len(), 1);
}

/// Writes a file with keys.
fn key_file(content: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    file
}

fn with_keys(builder: Builder, file: &NamedTempFile) -> Builder {
    builder.set("store.encryption_key_file", &file.path().to_string_lossy())
}

#[tokio::test]
async fn a_lost_key_is_reported_and_a_new_consent_helps() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let keys = key_file(OTHER_KEY);

    let two = replica(&database).beside(&one).refresh_token(in_file(&one));
    let two = with_keys(two, &keys).start_without_waiting().await;
    wait_until("the reason is known", async || {
        two.readiness().await.1.contains("decrypted")
    })
    .await;
    let (ready, action) = two.readiness().await;
    let redeemed = two.calls(SimulatedApi::Token);
    two.renew_refresh_token();
    wait_until("the new token is used", async || {
        two.pass(STEP).await;
        two.readiness().await.0
    })
    .await;

    assert!(!ready);
    for part in ["store.encryption_key_file", "usage-proxy consent"] {
        assert!(action.contains(part), "{part} in {action}");
    }
    assert_eq!((redeemed, two.calls(SimulatedApi::Token)), (1, 2));
}

#[tokio::test]
async fn a_new_key_takes_over_from_an_old_one() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let file = in_file(&one);
    let both = key_file(&format!("{OTHER_KEY}\n{ENCRYPTION_KEY}\n"));
    let new = key_file(OTHER_KEY);

    let two = replica(&database).beside(&one).refresh_token(&file);
    let two = with_keys(two, &both).start().await;
    end(one).await;
    two.renew_token().await;
    let three = replica(&database).beside(&two).refresh_token(&file);
    let three = with_keys(three, &new).start().await;

    assert_eq!(three.calls(SimulatedApi::Token), 2);
    assert_eq!(three.simulator.reused_refresh_tokens(), 0);
}

#[tokio::test]
async fn an_application_alone_shares_its_access_token() {
    let database = TestDatabase::create();
    let app_only = |builder: Builder| {
        builder.config(|config| {
            let grant = config.upstream.auth.grant().unwrap().clone();
            config.upstream.auth = AuthConfig::ClientCredentials { grant };
        })
    };

    let one = app_only(replica(&database)).start().await;
    let two = app_only(replica(&database).beside(&one)).start().await;

    assert_eq!(two.calls(SimulatedApi::Token), 1);
}

#[tokio::test]
async fn another_replica_redeems_in_place_of_one_that_died() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    let two = replica(&database)
        .beside(&one)
        .refresh_token(in_file(&one))
        .start()
        .await;
    one.simulator.hold_tokens();
    one.advance(LIFETIME.mul_f64(0.8));
    one.wait_for_calls(SimulatedApi::Token, 2).await;
    in_time(one.clock.wait_for_sleepers_until(1, PAUSE)).await;

    // The one that holds it has no answer yet.
    database.psql("UPDATE usage_proxy.lease SET expires_at = 1");
    one.advance(PAUSE);
    one.wait_for_calls(SimulatedApi::Token, 3).await;
    one.simulator.release_tokens();

    for app in [&one, &two] {
        app.wait_for_metric(SUCCESSES, 2.0).await;
        assert_eq!(app.native(customer(0)).await.status, 200);
    }
}

#[tokio::test]
async fn a_pause_that_the_token_endpoint_wants_counts_for_all_and_an_old_token_serves() {
    let database = TestDatabase::create();
    let one = replica(&database).start().await;
    one.set_faults(Faults {
        token_status: Some(StatusCode::SERVICE_UNAVAILABLE),
        retry_after: Some("600".to_owned()),
        ..Faults::default()
    });
    one.advance(LIFETIME.mul_f64(0.8));
    let failures = r#"usage_proxy_token_refresh_total{result="unavailable"}"#;
    one.wait_for_metric(failures, 1.0).await;
    wait_for_released_leases(&database).await;
    // By the clock of the server it is as old.
    database.psql("UPDATE usage_proxy.token SET expires_at = expires_at - lifetime * 4 / 5");

    let two = replica(&database)
        .beside(&one)
        .refresh_token(in_file(&one))
        .start()
        .await;

    assert_eq!(two.native(customer(0)).await.status, 200);
    assert_eq!(one.calls(SimulatedApi::Token), 2);
}

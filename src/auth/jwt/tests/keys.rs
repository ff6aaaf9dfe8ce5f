//! Tests of the issuer's keys and of the tokens that they have verified.

use super::*;
use crate::auth::jwt::{
    jwks::{DEMAND_INTERVAL, MAX_WAIT},
    jwks_source::FETCH_TIMEOUT,
    support::jwks,
};

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (TestSigner::ec("old"), TestSigner::ec("new"));
    let test = VerifierTest::start(&[&old]).await;
    test.verify(&old.token("ES256", &valid_claims()))
        .await
        .unwrap();
    test.issuer.publish(&[&old, &new]);
    test.clock.advance(DEMAND_INTERVAL);

    let verified = test.verify(&new.token("ES256", &valid_claims())).await;

    assert_eq!(verified.as_deref(), Ok("portal"));
    assert_eq!(test.issuer.fetches(), 2);
    assert_eq!(test.metric("usage_proxy_jwks_keys"), Some(2.0));
}

#[tokio::test]
async fn unknown_key_ids_cause_at_most_one_fetch_per_interval() {
    let (ours, theirs) = (TestSigner::ec("e"), TestSigner::ed("d"));
    let test = VerifierTest::start(&[&ours]).await;
    let flood = async || {
        for n in 0..200 {
            let header = json!({"alg": "EdDSA", "kid": n.to_string()});
            let token = theirs.token_with(&header, "EdDSA", &valid_claims());
            assert_eq!(test.rejection(&token).await, Some(TokenRejection::Key));
        }
    };

    let mut fetches = Vec::new();
    for _ in 0..3 {
        flood().await;
        fetches.push(test.issuer.fetches());
        test.clock.advance(DEMAND_INTERVAL);
    }

    assert_eq!(fetches, [1, 2, 3]);
}

#[tokio::test]
async fn requests_that_need_a_new_key_share_one_fetch() {
    let (old, new) = (TestSigner::ec("old"), TestSigner::ec("new"));
    let test = VerifierTest::start(&[&old]).await;
    test.verify(&old.token("ES256", &valid_claims()))
        .await
        .unwrap();
    test.issuer.publish(&[&new]);
    test.clock.advance(DEMAND_INTERVAL);
    let hold = test.issuer.hold().await;
    let token = new.token("ES256", &valid_claims());

    let verify = || test.verify(&token);
    let requests = async { tokio::join!(verify(), verify(), verify(), verify(), verify()) };
    let open = async {
        test.clock.wait_for_sleepers_until(5, MAX_WAIT).await;
        drop(hold);
    };
    let ((a, b, c, d, e), ()) = tokio::join!(requests, open);

    assert!([a, b, c, d, e].iter().all(Result::is_ok));
    assert_eq!(test.issuer.fetches(), 2);
}

#[tokio::test]
async fn a_request_does_not_wait_long_for_a_slow_issuer() {
    let signer = TestSigner::ec("e");
    let test = VerifierTest::start(&[&signer]).await;
    let hold = test.issuer.hold().await;
    let token = signer.token("ES256", &valid_claims());

    let (answer, ()) = tokio::join!(test.verify(&token), async {
        test.clock.wait_for_sleepers_until(1, MAX_WAIT).await;
        test.clock.advance(MAX_WAIT);
    });

    assert!(is_issuer_unavailable(&answer), "{answer:?}");
    drop(hold);
    assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn a_fetch_that_never_ends_times_out_and_is_retried() {
    let signer = TestSigner::ec("e");
    let test = VerifierTest::start(&[&signer]).await;
    let hold = test.issuer.hold().await;
    test.issuer.fetched(1).await;

    let tried_again = async {
        test.clock.advance_when_sleeping(FETCH_TIMEOUT).await;
        test.clock
            .advance_when_sleeping(Duration::from_secs(1))
            .await;
        test.issuer.fetched(2).await;
    };
    let in_time = tokio::time::timeout(WAIT_TIMEOUT, tried_again).await;

    in_time.expect("the fetch is given up");
    drop(hold);
    let token = signer.token("ES256", &valid_claims());
    assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
    let timed_out = r#"usage_proxy_jwks_fetches_total{result="timed-out"}"#;
    assert_eq!(test.metric(timed_out), Some(1.0));
}

#[tokio::test]
async fn if_the_issuer_was_never_reachable_tokens_are_not_rejected() {
    let signer = TestSigner::ec("e");
    let issuer = TestIssuer::start(&[&signer]).await;
    issuer.set_response(500, "");
    let test = VerifierTest::start_with(issuer, |_| {});
    let token = signer.token("ES256", &valid_claims());

    let down = test.verify(&token).await;
    test.issuer.publish(&[&signer]);
    test.clock
        .advance_when_sleeping(Duration::from_secs(1))
        .await;
    test.issuer.fetched(2).await;
    test.clock
        .wait_for_sleepers_until(1, REFRESH_INTERVAL)
        .await;
    let up = test.verify(&token).await;

    assert!(is_issuer_unavailable(&down), "{down:?}");
    assert_eq!(up.as_deref(), Ok("portal"));
    assert_eq!(test.issuer.fetches(), 2);
}

#[tokio::test]
async fn cached_keys_are_used_while_the_issuer_is_down() {
    let (known, unknown) = (TestSigner::ec("e"), TestSigner::ec("u"));
    let test = VerifierTest::start(&[&known]).await;
    test.verify(&known.token("ES256", &valid_claims()))
        .await
        .unwrap();
    for (status, body) in [
        (503, ""),
        (302, ""),
        (200, "<html>"),
        (200, r#"{"keys":[]}"#),
    ] {
        test.issuer.set_response(status, body);
        test.clock.advance(2 * REFRESH_INTERVAL);
        let now = test.clock.wall_time().as_second();
        let claims = with_changes(valid_claims(), json!({"nbf": now, "exp": now + 600}));

        let before = test.issuer.fetches();
        let blamed = test.verify(&unknown.token("ES256", &claims)).await;

        assert!(test.issuer.fetches() > before, "{status} {body}");
        assert!(
            is_issuer_unavailable(&blamed),
            "{status} {body}: {blamed:?}"
        );
        let token = known.token("ES256", &claims);
        assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
    }
    assert_eq!(test.metric("usage_proxy_jwks_keys"), Some(1.0));
    let success = "usage_proxy_jwks_last_success_timestamp_seconds";
    assert_eq!(test.metric(success), Some(NOW as f64));
    for (result, times) in [("success", 1.0), ("status", 2.0), ("malformed", 2.0)] {
        let name = format!("usage_proxy_jwks_fetches_total{{result=\"{result}\"}}");
        assert_eq!(test.metric(&name), Some(times), "{result}");
    }
}

#[tokio::test]
async fn an_endless_key_document_is_not_read_to_its_end() {
    let signer = TestSigner::ec("e");
    let issuer = TestIssuer::start(&[]).await;
    let mut document: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    document["padding"] = " ".repeat(300 * 1024).into();
    issuer.set_response(200, &document.to_string());
    let test = VerifierTest::start_with(issuer, |_| {});

    let answer = test.verify(&signer.token("ES256", &valid_claims())).await;

    assert!(is_issuer_unavailable(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_withdrawn_key_is_accepted_for_at_most_an_hour() {
    let (old, new) = (TestSigner::ec("old"), TestSigner::ec("new"));
    let test = VerifierTest::start(&[&old]).await;
    let token = old.token(
        "ES256",
        &with_changes(valid_claims(), json!({"exp": NOW + 86_400})),
    );
    test.verify(&token).await.unwrap();
    test.clock
        .wait_for_sleepers_until(1, REFRESH_INTERVAL)
        .await;
    test.clock
        .advance(REFRESH_INTERVAL - Duration::from_secs(1));
    test.verify(&token).await.unwrap();
    test.issuer.publish(&[&new]);

    test.clock.advance(Duration::from_secs(1));
    test.issuer.fetched(2).await;
    test.clock
        .wait_for_sleepers_until(1, REFRESH_INTERVAL)
        .await;

    // The token was cached a second ago, but by keys that have been replaced.
    assert_eq!(test.rejection(&token).await, Some(TokenRejection::Key));
}

#[tokio::test]
async fn a_verified_token_is_cached_until_it_expires_or_for_a_minute() {
    let signer = TestSigner::ec("e");
    let test = VerifierTest::start(&[&signer]).await;
    let inner = &*test.verifier.inner;
    let is_cached = |token: &str| inner.cached(&Sha256::digest(token).into()).is_some();
    let long = signer.token("ES256", &valid_claims());
    let short = signer.token(
        "ES256",
        &with_changes(valid_claims(), json!({"exp": NOW - 30})),
    );
    let forged = TestSigner::ec("e").token("ES256", &valid_claims());

    for token in [&long, &short, &forged] {
        assert!(!is_cached(token));
        let _valid = test.verify(token).await.is_ok();
    }
    assert_eq!(
        [&long, &short, &forged].map(|token| is_cached(token)),
        [true, true, false]
    );
    test.clock.advance(Duration::from_secs(30));
    assert_eq!([&long, &short].map(|token| is_cached(token)), [true, false]);
    assert_eq!(test.rejection(&short).await, Some(TokenRejection::Expired));
    test.clock.advance(Duration::from_secs(30));
    assert!(!is_cached(&long));
    assert_eq!(test.verify(&long).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn fetching_unchanged_keys_keeps_cached_tokens() {
    let signer = TestSigner::ec("e");
    let test = VerifierTest::start(&[&signer]).await;
    test.verify(&signer.token("ES256", &valid_claims()))
        .await
        .unwrap();
    let before = test.verifier.inner.jwks.keys().unwrap();

    test.refresh().await;
    test.clock
        .wait_for_sleepers_until(1, REFRESH_INTERVAL)
        .await;

    let after = test.verifier.inner.jwks.keys().unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    let success = "usage_proxy_jwks_last_success_timestamp_seconds";
    assert!(test.metric(success) > Some(NOW as f64));
}

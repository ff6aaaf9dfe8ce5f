use super::*;
use crate::auth::jwt::{
    jwks::{DEMAND_INTERVAL, LONGEST_WAIT},
    source::FETCH_TIMEOUT,
    support::jwks,
};

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let test = Test::start(&[&old]).await;
    test.verify(&old.token("ES256", &good())).await.unwrap();
    test.issuer.publish(&[&old, &new]);
    test.clock.advance(DEMAND_INTERVAL);

    let verified = test.verify(&new.token("ES256", &good())).await;

    assert_eq!(verified.as_deref(), Ok("portal"));
    assert_eq!(test.issuer.fetches(), 2);
    assert_eq!(test.metric("usage_proxy_jwks_keys"), Some(2.0));
}

#[tokio::test]
async fn made_up_key_names_cost_one_fetch_an_interval() {
    let (ours, theirs) = (Signer::ec("e"), Signer::ed("d"));
    let test = Test::start(&[&ours]).await;
    let flood = async || {
        for n in 0..200 {
            let header = json!({"alg": "EdDSA", "kid": n.to_string()});
            let token = theirs.token_with(&header, "EdDSA", &good());
            assert_eq!(test.rejection(&token).await, Some(Rejection::Key));
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
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let test = Test::start(&[&old]).await;
    test.verify(&old.token("ES256", &good())).await.unwrap();
    test.issuer.publish(&[&new]);
    test.clock.advance(DEMAND_INTERVAL);
    let held = test.issuer.hold().await;
    let token = new.token("ES256", &good());

    let verify = || test.verify(&token);
    let requests = async { tokio::join!(verify(), verify(), verify(), verify(), verify()) };
    let open = async {
        test.clock.asleep(5, LONGEST_WAIT).await;
        drop(held);
    };
    let ((a, b, c, d, e), ()) = tokio::join!(requests, open);

    assert!([a, b, c, d, e].iter().all(Result::is_ok));
    assert_eq!(test.issuer.fetches(), 2);
}

#[tokio::test]
async fn a_request_does_not_wait_long_for_a_slow_issuer() {
    let signer = Signer::ec("e");
    let test = Test::start(&[&signer]).await;
    let held = test.issuer.hold().await;
    let token = signer.token("ES256", &good());

    let (answer, ()) = tokio::join!(test.verify(&token), async {
        test.clock.asleep(1, LONGEST_WAIT).await;
        test.clock.advance(LONGEST_WAIT);
    });

    assert!(unavailable(&answer), "{answer:?}");
    drop(held);
    assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn a_fetch_that_never_ends_is_given_up_and_tried_again() {
    let signer = Signer::ec("e");
    let test = Test::start(&[&signer]).await;
    let held = test.issuer.hold().await;
    test.issuer.fetched(1).await;

    let tried_again = async {
        test.clock.pass(FETCH_TIMEOUT).await;
        test.clock.pass(Duration::from_secs(1)).await;
        test.issuer.fetched(2).await;
    };
    let in_time = tokio::time::timeout(PATIENCE, tried_again).await;

    in_time.expect("the fetch is given up");
    drop(held);
    let token = signer.token("ES256", &good());
    assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
    let timed_out = r#"usage_proxy_jwks_fetches_total{result="timed-out"}"#;
    assert_eq!(test.metric(timed_out), Some(1.0));
}

#[tokio::test]
async fn while_the_issuer_is_down_from_the_start_nobody_is_blamed() {
    let signer = Signer::ec("e");
    let issuer = Issuer::start(&[&signer]).await;
    issuer.answer(500, "");
    let test = Test::start_with(issuer, |_| {});
    let token = signer.token("ES256", &good());

    let down = test.verify(&token).await;
    test.issuer.publish(&[&signer]);
    test.clock.pass(Duration::from_secs(1)).await;
    test.issuer.fetched(2).await;
    test.clock.asleep(1, REFRESH_INTERVAL).await;
    let up = test.verify(&token).await;

    assert!(unavailable(&down), "{down:?}");
    assert_eq!(up.as_deref(), Ok("portal"));
    assert_eq!(test.issuer.fetches(), 2);
}

#[tokio::test]
async fn keys_that_are_held_are_used_while_the_issuer_is_down() {
    let (known, unknown) = (Signer::ec("e"), Signer::ec("u"));
    let test = Test::start(&[&known]).await;
    test.verify(&known.token("ES256", &good())).await.unwrap();
    for (status, body) in [
        (503, ""),
        (302, ""),
        (200, "<html>"),
        (200, r#"{"keys":[]}"#),
    ] {
        test.issuer.answer(status, body);
        test.clock.advance(2 * REFRESH_INTERVAL);
        let now = test.clock.wall().as_second();
        let claims = with(good(), json!({"nbf": now, "exp": now + 600}));

        let before = test.issuer.fetches();
        let blamed = test.verify(&unknown.token("ES256", &claims)).await;

        assert!(test.issuer.fetches() > before, "{status} {body}");
        assert!(unavailable(&blamed), "{status} {body}: {blamed:?}");
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
async fn a_document_without_an_end_is_not_read_to_its_end() {
    let signer = Signer::ec("e");
    let issuer = Issuer::start(&[]).await;
    let mut document: Value = serde_json::from_str(&jwks(&[&signer])).unwrap();
    document["padding"] = " ".repeat(300 * 1024).into();
    issuer.answer(200, &document.to_string());
    let test = Test::start_with(issuer, |_| {});

    let answer = test.verify(&signer.token("ES256", &good())).await;

    assert!(unavailable(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_key_that_the_issuer_withdraws_is_believed_for_an_hour_at_most() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let test = Test::start(&[&old]).await;
    let token = old.token("ES256", &with(good(), json!({"exp": NOW + 86_400})));
    test.verify(&token).await.unwrap();
    test.clock.asleep(1, REFRESH_INTERVAL).await;
    test.clock
        .advance(REFRESH_INTERVAL - Duration::from_secs(1));
    test.verify(&token).await.unwrap();
    test.issuer.publish(&[&new]);

    test.clock.advance(Duration::from_secs(1));
    test.issuer.fetched(2).await;
    test.clock.asleep(1, REFRESH_INTERVAL).await;

    // It was remembered a second ago, but by keys that are not held any more.
    assert_eq!(test.rejection(&token).await, Some(Rejection::Key));
}

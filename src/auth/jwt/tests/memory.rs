use super::*;

#[tokio::test]
async fn a_token_is_remembered_until_it_expires_and_for_a_minute_at_most() {
    let signer = Signer::ec("e");
    let test = Test::start(&[&signer]).await;
    let inner = &*test.verifier.inner;
    let remembers = |token: &str| {
        let Some(keys) = inner.jwks.held() else {
            return false;
        };
        let digest = Remembered::digest(token);
        inner
            .remembered
            .get(&digest, &keys, test.clock.now())
            .is_some()
    };
    let long = signer.token("ES256", &good());
    let short = signer.token("ES256", &with(good(), json!({"exp": NOW - 30})));
    let forged = Signer::ec("e").token("ES256", &good());

    for token in [&long, &short, &forged] {
        assert!(!remembers(token));
        let _judged = test.verify(token).await.is_ok();
    }
    assert_eq!(
        [&long, &short, &forged].map(|token| remembers(token)),
        [true, true, false]
    );
    test.clock.advance(Duration::from_secs(30));
    assert_eq!([&long, &short].map(|token| remembers(token)), [true, false]);
    assert_eq!(test.rejection(&short).await, Some(Rejection::Expired));
    test.clock.advance(Duration::from_secs(30));
    assert!(!remembers(&long));
    assert_eq!(test.verify(&long).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn keys_that_are_fetched_unchanged_forget_nobody() {
    let signer = Signer::ec("e");
    let test = Test::start(&[&signer]).await;
    test.verify(&signer.token("ES256", &good())).await.unwrap();
    let before = test.verifier.inner.jwks.held().unwrap();

    test.refresh().await;
    test.clock.asleep(1, REFRESH_INTERVAL).await;

    let after = test.verifier.inner.jwks.held().unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    let success = "usage_proxy_jwks_last_success_timestamp_seconds";
    assert!(test.metric(success) > Some(NOW as f64));
}

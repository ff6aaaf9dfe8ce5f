use super::*;

#[tokio::test]
async fn a_verified_token_is_cached_until_it_expires_or_for_a_minute() {
    let signer = TestSigner::ec("e");
    let test = VerifierTest::start(&[&signer]).await;
    let inner = &*test.verifier.inner;
    let remembers = |token: &str| {
        let Some(keys) = inner.jwks.held() else {
            return false;
        };
        let digest = VerifiedTokenCache::digest(token);
        inner
            .token_cache
            .get(&digest, &keys, test.clock.now())
            .is_some()
    };
    let long = signer.token("ES256", &valid_claims());
    let short = signer.token(
        "ES256",
        &with_changes(valid_claims(), json!({"exp": NOW - 30})),
    );
    let forged = TestSigner::ec("e").token("ES256", &valid_claims());

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
    assert_eq!(test.rejection(&short).await, Some(TokenRejection::Expired));
    test.clock.advance(Duration::from_secs(30));
    assert!(!remembers(&long));
    assert_eq!(test.verify(&long).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn fetching_unchanged_keys_keeps_cached_tokens() {
    let signer = TestSigner::ec("e");
    let test = VerifierTest::start(&[&signer]).await;
    test.verify(&signer.token("ES256", &valid_claims()))
        .await
        .unwrap();
    let before = test.verifier.inner.jwks.held().unwrap();

    test.refresh().await;
    test.clock
        .wait_for_sleepers_until(1, REFRESH_INTERVAL)
        .await;

    let after = test.verifier.inner.jwks.held().unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    let success = "usage_proxy_jwks_last_success_timestamp_seconds";
    assert!(test.metric(success) > Some(NOW as f64));
}

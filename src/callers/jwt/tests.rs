use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    claims::LEEWAY,
    jwks::{DEMAND_INTERVAL, LONGEST_WAIT, REFRESH_INTERVAL},
    source::FETCH_TIMEOUT,
    support::{Issuer, Signer, hmac_token, message},
    *,
};
use crate::{
    clock::{Clock, ManualClock},
    domain::{Scope, samples},
};

const ISSUER: &str = "https://issuer.example/tenant/v2.0";
const AUDIENCE: &str = "api://usage-proxy";

/// How long a test waits for what comes at once.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const NOW: i64 = 1_790_000_000;

/// Claims that nothing is wrong with, for ten minutes.
pub(super) fn good() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "portal", "nbf": NOW, "exp": NOW + 600})
}

pub(super) fn config(jwks_url: &str) -> JwtConfig {
    JwtConfig {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        jwks_url: jwks_url.parse().unwrap(),
        subject_claim: "sub".to_owned(),
        scopes_claim: None,
        customers_claim: None,
    }
}

struct Test {
    issuer: Issuer,
    verifier: JwtVerifier,
    clock: Arc<ManualClock>,
    registry: Registry,
    shutdown: Shutdown,
}

impl Test {
    async fn start(signers: &[&Signer]) -> Self {
        Self::start_with(Issuer::start(signers).await, |_| {})
    }

    fn start_with(issuer: Issuer, change: impl FnOnce(&mut JwtConfig)) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_second(NOW).unwrap()));
        let registry = Registry::new();
        let shutdown = Shutdown::new();
        let mut config = config(&issuer.url);
        change(&mut config);
        let deps = JwtDeps {
            clock: Arc::clone(&clock) as _,
            jitter: Jitter::Fixed(0.5),
            shutdown: shutdown.clone(),
            registry: &registry,
        };
        let verifier = JwtVerifier::start(&config, &deps).unwrap();
        Self {
            issuer,
            verifier,
            clock,
            registry,
            shutdown,
        }
    }

    /// The caller's name, or why there is none.
    async fn verify(&self, token: &str) -> Result<String, VerifyError> {
        // The clock of the service stands still: a request that waited for it would wait for ever.
        let answer = tokio::time::timeout(PATIENCE, self.verifier.verify(token)).await;
        let verified = answer.expect("the request is not answered")?;
        Ok(verified.subject().to_owned())
    }

    async fn rejection(&self, token: &str) -> Option<Rejection> {
        match self.verify(token).await {
            Err(VerifyError::Rejected(rejection)) => Some(rejection),
            Err(VerifyError::IssuerUnavailable { .. }) => panic!("the issuer can be had"),
            Ok(_) => None,
        }
    }

    /// Moves the clock past the time of the next scheduled fetch, and waits for its end.
    async fn refresh(&self) {
        let fetches = self.issuer.fetches();
        self.clock.asleep(1, REFRESH_INTERVAL).await;
        self.clock.advance(REFRESH_INTERVAL);
        self.issuer.fetched(fetches + 1).await;
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let sample = text.lines().find_map(|line| line.strip_prefix(name))?;
        sample.trim().parse().ok()
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        self.shutdown.drain();
    }
}

fn unavailable(result: &Result<String, VerifyError>) -> bool {
    matches!(result, Err(VerifyError::IssuerUnavailable { .. }))
}

/// `claims` with these instead; null takes one away.
fn with(mut claims: Value, changes: Value) -> Value {
    let all = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        all.remove(name);
        if !value.is_null() {
            all.insert(name.clone(), value.clone());
        }
    }
    claims
}

// === Signatures ===

#[tokio::test]
async fn each_algorithm_that_is_accepted_lets_its_caller_in() {
    let (rsa, ec, ed) = (Signer::rsa("r"), Signer::ec("e"), Signer::ed("d"));
    let test = Test::start(&[&rsa, &ec, &ed]).await;

    for (signer, algorithm) in [
        (&rsa, "RS256"),
        (&rsa, "PS256"),
        (&ec, "ES256"),
        (&ed, "EdDSA"),
    ] {
        let token = signer.token(algorithm, &good());

        assert_eq!(
            test.verify(&token).await.as_deref(),
            Ok("portal"),
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn unsigned_tokens_and_shared_secrets_let_nobody_in() {
    let rsa = Signer::rsa("r");
    let test = Test::start(&[&rsa]).await;
    let jwk = rsa.jwk();
    let unsigned = message(&json!({"alg": "none", "kid": "r"}), &good());

    for token in [
        format!("{unsigned}."),
        format!("{unsigned}.c2ln"),
        // The classic confusion: the public key, in one form or another, as the shared secret.
        hmac_token("r", &rsa.public_der(), &good()),
        hmac_token("r", jwk["n"].as_str().unwrap().as_bytes(), &good()),
        hmac_token("r", jwk.to_string().as_bytes(), &good()),
        hmac_token("r", b"", &good()),
        rsa.token("RS384", &good()),
        rsa.token("RS512", &good()),
        rsa.token("PS384", &good()),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(Rejection::Algorithm),
            "{token}"
        );
    }
}

#[tokio::test]
async fn the_key_says_which_algorithm_it_is_for() {
    let (rsa, ec) = (Signer::rsa("r"), Signer::ec("e"));
    let issuer = Issuer::start(&[]).await;
    let mut pinned = rsa.jwk();
    pinned["alg"] = "RS256".into();
    issuer.answer(200, &json!({"keys": [pinned, ec.jwk()]}).to_string());
    let test = Test::start_with(issuer, |_| {});

    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});
    for token in [
        rsa.token("PS256", &good()),
        rsa.token_with(&header("RS256", "e"), "RS256", &good()),
        ec.token_with(&header("ES256", "r"), "ES256", &good()),
        ec.token_with(&header("EdDSA", "e"), "ES256", &good()),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(Rejection::Key),
            "{token}"
        );
    }
    let token = rsa.token("RS256", &good());
    assert_eq!(test.verify(&token).await.as_deref(), Ok("portal"));
}

#[tokio::test]
async fn what_another_key_has_signed_or_somebody_changed_is_refused() {
    let (ours, theirs) = (Signer::ec("e"), Signer::ec("e"));
    let test = Test::start(&[&ours]).await;
    let token = ours.token("ES256", &good());
    let (_, signature) = token.rsplit_once('.').unwrap();
    let header = json!({"typ": "JWT", "alg": "ES256", "kid": "e"});
    let promoted = message(&header, &with(good(), json!({"sub": "admin"})));

    for token in [
        theirs.token("ES256", &good()),
        format!("{promoted}.{signature}"),
        format!("{}.", message(&header, &good())),
        // The key that the token itself brings along is nobody's.
        theirs.token_with(
            &with(header.clone(), json!({"jwk": theirs.jwk()})),
            "ES256",
            &good(),
        ),
        theirs.token_with(
            &with(header.clone(), json!({"jku": "https://evil.example/keys"})),
            "ES256",
            &good(),
        ),
    ] {
        assert_eq!(
            test.rejection(&token).await,
            Some(Rejection::Signature),
            "{token}"
        );
    }
}

// === Claims ===

#[tokio::test]
async fn a_token_is_for_us_from_our_issuer_and_valid_now() {
    let signer = Signer::ed("d");
    let test = Test::start(&[&signer]).await;
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap();

    for (changes, expected) in [
        (json!({"exp": null}), Some(Rejection::Expired)),
        (json!({"exp": "soon"}), Some(Rejection::Expired)),
        (json!({"exp": -1}), Some(Rejection::Expired)),
        (json!({"exp": NOW - leeway}), Some(Rejection::Expired)),
        (json!({"exp": NOW - leeway + 1}), None),
        (json!({"exp": (NOW - leeway) as f64 + 0.5}), None),
        (json!({"exp": u64::MAX}), None),
        (json!({"nbf": null}), None),
        (json!({"nbf": NOW + leeway}), None),
        (
            json!({"nbf": NOW + leeway + 1}),
            Some(Rejection::NotYetValid),
        ),
        (json!({"nbf": "now"}), Some(Rejection::Malformed)),
        (json!({"iss": null}), Some(Rejection::Issuer)),
        (
            json!({"iss": "https://issuer.example/tenant/v2.0/"}),
            Some(Rejection::Issuer),
        ),
        (
            json!({"iss": "HTTPS://issuer.example/tenant/v2.0"}),
            Some(Rejection::Issuer),
        ),
        (json!({"iss": 1}), Some(Rejection::Issuer)),
        (json!({"aud": null}), Some(Rejection::Audience)),
        (json!({"aud": "api://other"}), Some(Rejection::Audience)),
        (json!({"aud": []}), Some(Rejection::Audience)),
        (
            json!({"aud": ["api://other", "account"]}),
            Some(Rejection::Audience),
        ),
        (json!({"aud": ["account", AUDIENCE]}), None),
        (json!({"sub": null}), Some(Rejection::Subject)),
        (json!({"sub": ""}), Some(Rejection::Subject)),
        (json!({"sub": 7}), Some(Rejection::Subject)),
        (json!({"sub": "a\nb"}), Some(Rejection::Subject)),
        (json!({"sub": "s".repeat(257)}), Some(Rejection::Subject)),
    ] {
        let token = signer.token("EdDSA", &with(good(), changes.clone()));

        assert_eq!(test.rejection(&token).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn configured_claims_say_who_and_what() {
    let signer = Signer::ed("d");
    let issuer = Issuer::start(&[&signer]).await;
    let test = Test::start_with(issuer, |config| {
        config.subject_claim = "azp".to_owned();
        config.scopes_claim = Some("roles".to_owned());
        config.customers_claim = Some("customers".to_owned());
    });
    let customer = samples::customer();
    let only = |these: &[_]| Customers::Only(Arc::new(these.iter().copied().collect()));
    let both = || Scopes::from_iter(Scope::ALL);
    let read = || Scopes::from_iter([Scope::UsageRead]);

    for (claims, scopes, customers) in [
        (json!({}), Scopes::default(), only(&[])),
        (json!({"roles": "usage:read"}), read(), only(&[])),
        (
            json!({"roles": "openid cache:refresh usage:read "}),
            both(),
            only(&[]),
        ),
        (
            json!({"roles": ["usage:read", "usage:write"]}),
            read(),
            only(&[]),
        ),
        (
            json!({"roles": [["usage:read"]]}),
            Scopes::default(),
            only(&[]),
        ),
        (
            json!({"roles": {"usage:read": true}}),
            Scopes::default(),
            only(&[]),
        ),
        (json!({"customers": "*"}), Scopes::default(), Customers::All),
        (json!({"customers": []}), Scopes::default(), only(&[])),
        (
            json!({"customers": [customer.to_string()]}),
            Scopes::default(),
            only(&[customer]),
        ),
        (
            json!({"customers": [customer.to_string(), "*"]}),
            Scopes::default(),
            Customers::All,
        ),
    ] {
        let token = signer.token(
            "EdDSA",
            &with(with(good(), json!({"azp": "a"})), claims.clone()),
        );

        let verified = test.verifier.verify(&token).await.unwrap();

        let expected = Verified::new("a", Some(scopes), Some(customers));
        assert_eq!(*verified, expected, "{claims}");
    }
    for customers in [
        json!("x"),
        json!(["x", "*"]),
        json!(["*", "x"]),
        json!([1]),
        json!(1),
    ] {
        let claims = with(good(), json!({"azp": "a", "customers": customers}));

        let rejection = test.rejection(&signer.token("EdDSA", &claims)).await;

        assert_eq!(rejection, Some(Rejection::Customers), "{customers}");
    }
    assert_eq!(
        test.rejection(&signer.token("EdDSA", &good())).await,
        Some(Rejection::Subject),
    );
}

#[tokio::test]
async fn claims_that_are_not_configured_are_not_read() {
    let signer = Signer::ed("d");
    let test = Test::start(&[&signer]).await;
    let claims = with(good(), json!({"roles": "usage:read", "customers": "x"}));

    let verified = test.verifier.verify(&signer.token("EdDSA", &claims)).await;

    let verified = verified.unwrap();
    assert_eq!((verified.scopes, &verified.customers), (None, &None));
}

// === Keys ===

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

    test.clock.pass(FETCH_TIMEOUT).await;
    test.clock.pass(Duration::from_secs(1)).await;
    test.issuer.fetched(2).await;

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
    let mut document: Value = serde_json::from_str(&support::jwks(&[&signer])).unwrap();
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

// === Memory ===

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

#[test]
fn every_reason_has_a_name_and_a_sentence_of_its_own() {
    let names: HashSet<_> = Rejection::ALL.map(Rejection::as_str).into();
    let sentences: HashSet<_> = Rejection::ALL.map(Rejection::description).into();

    assert_eq!(names.len(), Rejection::ALL.len());
    assert_eq!(sentences.len(), Rejection::ALL.len());
    for sentence in sentences {
        assert!(!sentence.contains(['"', '\\']), "{sentence}");
    }
}

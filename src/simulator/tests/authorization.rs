use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::*;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://localhost:8400";

type QueryPairs<'a> = Vec<(&'a str, String)>;

fn authorization_request<'a>() -> QueryPairs<'a> {
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    [
        ("client_id", "usage-proxy"),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        (
            "scope",
            "https://api.example/user_impersonation offline_access",
        ),
        ("state", "the state"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// `pairs` with another value of one, or none.
fn with_parameter<'a>(
    mut pairs: QueryPairs<'a>,
    name: &str,
    value: Option<&str>,
) -> QueryPairs<'a> {
    match value {
        Some(value) => {
            for pair in pairs.iter_mut().filter(|pair| pair.0 == name) {
                pair.1 = value.to_owned();
            }
        }
        None => pairs.retain(|pair| pair.0 != name),
    }
    pairs
}

async fn authorize(simulator: &TestSimulator, parameters: QueryPairs<'_>) -> Response {
    let url = simulator.url("/tenant/oauth2/v2.0/authorize");
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    client.get(url).query(&parameters).send().await.unwrap()
}

/// The origin and the query that the browser is redirected to.
fn redirect_target(answer: &Response) -> (String, HashMap<String, String>) {
    assert_eq!(answer.status(), 302);
    let url: url::Url = answer.headers()["location"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let query = url.query_pairs().into_owned().collect();
    (url.origin().ascii_serialization(), query)
}

async fn obtain_code(simulator: &TestSimulator) -> String {
    let (origin, mut query) = redirect_target(&authorize(simulator, authorization_request()).await);
    assert_eq!(origin, REDIRECT);
    assert_eq!(query["state"], "the state");
    query.remove("code").unwrap()
}

async fn redeem_code(
    simulator: &TestSimulator,
    code: &str,
    name: &str,
    value: Option<&str>,
) -> Response {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let form = with_parameter(form.into(), name, value);
    let form: Vec<_> = form
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    simulator
        .request_token("/tenant/oauth2/v2.0/token", &form)
        .await
}

#[tokio::test]
async fn a_code_is_redeemed_once_for_tokens_of_a_user() {
    let simulator = TestSimulator::start().await;
    let code = obtain_code(&simulator).await;

    let granted = json(redeem_code(&simulator, &code, "", None).await).await;
    let again = json(redeem_code(&simulator, &code, "", None).await).await;

    assert_eq!(granted["scope"], "user_impersonation");
    let refresh_token = granted["refresh_token"].as_str().unwrap().to_owned();
    assert!(
        simulator
            .handle
            .live_refresh_tokens()
            .contains(&refresh_token)
    );
    assert_eq!(again["error"], "invalid_grant");
    assert_eq!(again["error_codes"][0], 54_005);
}

#[tokio::test]
async fn a_code_needs_its_verifier_and_redirect_uri() {
    let simulator = TestSimulator::start().await;

    for (name, value, refused) in [
        ("code_verifier", Some("another"), 501_481),
        ("code_verifier", None, 501_481),
        ("redirect_uri", Some("http://localhost:8401"), 500_112),
        ("code", Some("made up"), 70_000),
    ] {
        let code = obtain_code(&simulator).await;

        let answer = redeem_code(&simulator, &code, name, value).await;

        assert_eq!(answer.status(), 400, "{name}");
        assert_eq!(json(answer).await["error_codes"][0], refused, "{name}");
    }
}

#[tokio::test]
async fn a_refresh_token_needs_the_offline_access_scope() {
    let simulator = TestSimulator::start().await;
    let parameters = with_parameter(
        authorization_request(),
        "scope",
        Some("https://api.example/user_impersonation"),
    );
    let (_, query) = redirect_target(&authorize(&simulator, parameters).await);

    let granted = json(redeem_code(&simulator, &query["code"], "", None).await).await;

    assert!(granted["access_token"].is_string());
    assert_eq!(granted.get("refresh_token"), None);
}

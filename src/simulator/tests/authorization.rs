use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::*;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://localhost:8400";

type Pairs<'a> = Vec<(&'a str, String)>;

fn request<'a>() -> Pairs<'a> {
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
fn with<'a>(mut pairs: Pairs<'a>, name: &str, value: Option<&str>) -> Pairs<'a> {
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

async fn authorize(stand: &Stand, asked: Pairs<'_>) -> Response {
    let url = stand.url("/tenant/oauth2/v2.0/authorize");
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    client.get(url).query(&asked).send().await.unwrap()
}

/// The origin and the query that the browser is redirected to.
fn sent_to(answer: &Response) -> (String, HashMap<String, String>) {
    assert_eq!(answer.status(), 302);
    let url: url::Url = answer.headers()["location"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let query = url.query_pairs().into_owned().collect();
    (url.origin().ascii_serialization(), query)
}

async fn code(stand: &Stand) -> String {
    let (origin, mut query) = sent_to(&authorize(stand, request()).await);
    assert_eq!(origin, REDIRECT);
    assert_eq!(query["state"], "the state");
    query.remove("code").unwrap()
}

async fn redeem(stand: &Stand, code: &str, name: &str, value: Option<&str>) -> Response {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let form = with(form.into(), name, value);
    let form: Vec<_> = form
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    stand.ask_token("/tenant/oauth2/v2.0/token", &form).await
}

#[tokio::test]
async fn a_code_is_redeemed_once_for_tokens_of_a_user() {
    let stand = Stand::start().await;
    let code = code(&stand).await;

    let granted = json(redeem(&stand, &code, "", None).await).await;
    let again = json(redeem(&stand, &code, "", None).await).await;

    assert_eq!(granted["scope"], "user_impersonation");
    let refresh_token = granted["refresh_token"].as_str().unwrap().to_owned();
    assert!(stand.handle.live_refresh_tokens().contains(&refresh_token));
    assert_eq!(again["error"], "invalid_grant");
    assert_eq!(again["error_codes"][0], 54_005);
}

#[tokio::test]
async fn a_code_goes_with_its_verifier_and_its_redirect_uri() {
    let stand = Stand::start().await;

    for (name, value, refused) in [
        ("code_verifier", Some("another"), 501_481),
        ("code_verifier", None, 501_481),
        ("redirect_uri", Some("http://localhost:8401"), 500_112),
        ("code", Some("made up"), 70_000),
    ] {
        let code = code(&stand).await;

        let answer = redeem(&stand, &code, name, value).await;

        assert_eq!(answer.status(), 400, "{name}");
        assert_eq!(json(answer).await["error_codes"][0], refused, "{name}");
    }
}

#[tokio::test]
async fn no_refresh_token_comes_unless_offline_access_is_asked_for() {
    let stand = Stand::start().await;
    let asked = with(
        request(),
        "scope",
        Some("https://api.example/user_impersonation"),
    );
    let (_, query) = sent_to(&authorize(&stand, asked).await);

    let granted = json(redeem(&stand, &query["code"], "", None).await).await;

    assert!(granted["access_token"].is_string());
    assert_eq!(granted.get("refresh_token"), None);
}

#[tokio::test]
async fn no_browser_is_redirected_to_an_address_that_is_not_registered() {
    let stand = Stand::start().await;

    for redirect_uri in [
        "http://evil.example",
        "http://localhost.evil.example",
        "https://localhost:8400",
        "http://localhost:8400/elsewhere",
    ] {
        let answer = authorize(&stand, with(request(), "redirect_uri", Some(redirect_uri))).await;

        assert_eq!(answer.status(), 400, "{redirect_uri}");
        assert_eq!(json(answer).await["error_codes"][0], 50_011);
    }
}

#[tokio::test]
async fn a_wrong_request_is_redirected_back_with_the_error() {
    let stand = Stand::start().await;

    for (name, value) in [
        ("response_type", Some("token")),
        ("code_challenge_method", Some("plain")),
        ("scope", None),
    ] {
        let (origin, query) = sent_to(&authorize(&stand, with(request(), name, value)).await);

        assert_eq!(origin, REDIRECT, "{name}");
        assert_eq!(query["state"], "the state");
        assert!(query.contains_key("error"), "{name}: {query:?}");
        assert!(!query.contains_key("code"), "{name}: {query:?}");
    }
}

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, SystemClock};

/// Long enough to be nowhere by chance.
const SECRET: &str = "canary-refresh-token";

/// Returns values of a field of a token reply, right ones among them.
fn field() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..100_000_u64).prop_map(|seconds| Value::from(seconds.to_string())),
        prop::sample::select(vec![
            "Bearer",
            "bearer",
            "pop",
            "",
            "invalid_grant",
            "slow_down"
        ])
        .prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        ".{0,20}".prop_map(|around| Value::from(format!("{around}{SECRET}{around}"))),
        prop::collection::vec(any::<u32>(), 0..3).prop_map(Value::from),
    ]
}

fn answer_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::btree_map(prop::sample::select(names), field(), 0..=names.len());
    prop_oneof![
        8 => fields.prop_map(|fields| {
            let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
            Value::Object(fields.collect()).to_string().into_bytes()
        }),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => field().prop_map(|value| value.to_string().into_bytes()),
    ]
}

fn grant() -> impl Strategy<Value = Vec<u8>> {
    answer_of(&["access_token", "token_type", "expires_in", "refresh_token"])
}

fn error() -> impl Strategy<Value = Vec<u8>> {
    answer_of(&[
        "error",
        "error_description",
        "error_codes",
        "correlation_id",
        "suberror",
    ])
}

fn answered(status: u16, body: Vec<u8>) -> HttpReply {
    HttpReply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: body.into(),
        unread: None,
    }
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn only_tokens_of_the_reply_are_accepted(body in grant()) {
        let sent = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let sent = |field: &str| sent[field].as_str().map(str::to_owned);
        let exposed = |token: &SecretString| Some(token.expose_secret().to_owned());

        if let Ok(granted) = parse_granted(&answered(200, body), SystemClock.now()) {
            if let Ok(access) = &granted.access {
                prop_assert_eq!(exposed(&access.token), sent("access_token"));
                let lifetime = access.lifetime.unwrap();
                prop_assert!(!lifetime.is_zero() && lifetime <= MAX_LIFETIME);
            }
            if let Some(refresh) = &granted.refresh_token {
                prop_assert_eq!(exposed(refresh), sent("refresh_token"));
            }
        }
    }

    #[test]
    fn a_failure_contains_no_secret_of_a_token_reply(body in grant()) {
        let now = SystemClock.now();
        let failure = parse_granted(&answered(200, body), now).and_then(|granted| granted.access);

        if let Err(failure) = failure {
            prop_assert!(!format!("{failure:?}").contains(SECRET), "{:?}", failure);
        }
    }

    #[test]
    fn a_failure_contains_no_secret_of_a_refusal(status in 400..600_u16, body in error()) {
        let secret = SecretString::from(SECRET);

        let failure = parse_failure(&answered(status, body), SystemClock.wall_time(), &[&secret]);

        prop_assert!(!format!("{failure:?}").contains(SECRET), "{:?}", failure);
        prop_assert!(failure.cause.chars().count() < 600, "{:?}", failure);
        prop_assert!(!failure.cause.chars().any(char::is_control), "{:?}", failure);
    }

    #[test]
    fn server_errors_are_transient(status in 500..600_u16, body in error()) {
        let failure = parse_failure(&answered(status, body), SystemClock.wall_time(), &[]);

        let is_transient = matches!(failure.kind, GrantFailureKind::Transient { .. });
        prop_assert!(is_transient, "{:?}", failure);
    }
}

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::proptest_support::any_header_value;

/// Long enough to be nowhere by chance.
const TOKEN: &str = "canary-access-token";

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,400}",
        ".{0,40}".prop_map(|around| format!("{around}{TOKEN}{around}")),
        // At positions where a cut could leave half of the token.
        (40..320_usize).prop_map(|before| format!("{}{TOKEN}", "x".repeat(before))),
        "\\PC{0,4}\\s{0,4}",
    ]
}

fn field() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => text().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => prop::collection::vec(text().prop_map(Value::from), 0..2).prop_map(Value::from),
    ]
}

fn fault() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "code",
        "errorCode",
        "statusCode",
        "description",
        "errorMessage",
        "message",
        "data",
        "source",
    ]);
    prop::collection::btree_map(names, field(), 0..5).prop_map(|fields| {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Value::Object(fields.collect())
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => fault().prop_map(|fault| fault.to_string().into_bytes()),
        2 => fault().prop_map(|fault| serde_json::json!({ "error": fault }).to_string().into_bytes()),
        1 => field().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn a_parsed_refusal_is_short_printable_and_without_the_token(
        body in body(), request_id in any_header_value(), correlation_id in any_header_value(),
    ) {
        let headers = [("ms-requestid", request_id), ("ms-correlationid", correlation_id)];
        let answer = HttpReply {
            status: StatusCode::BAD_REQUEST,
            headers: headers.into_iter().map(|(name, id)| (name.parse().unwrap(), id)).collect(),
            body: body.into(),
            unread: None,
        };

        let refusal = parse_refusal(&answer, Some(TOKEN));

        for (text, max_chars) in [
            (&refusal.code, MAX_CODE),
            (&refusal.description, MAX_DESCRIPTION),
            (&refusal.request_id, MAX_CODE),
            (&refusal.correlation_id, MAX_CODE),
        ] {
            let Some(text) = text else { continue };
            prop_assert!((1..=max_chars + 1).contains(&text.chars().count()), "{:?}", text);
            prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
            prop_assert!(!text.contains("canary-access"), "{:?}", text);
        }
    }

    #[test]
    fn a_code_is_parsed_unchanged(code in "[0-9A-Za-z_.-]{1,64}", description in "[ -~]{1,80}") {
        let sent = serde_json::json!({ "code": code, "description": description });
        let answer = HttpReply {
            status: StatusCode::BAD_REQUEST,
            headers: HeaderMap::new(),
            body: sent.to_string().into(),
            unread: None,
        };

        let refusal = parse_refusal(&answer, None);

        prop_assert_eq!(refusal.code, Some(code));
        let description = Some(description.trim()).filter(|text| !text.is_empty());
        prop_assert_eq!(refusal.description.as_deref(), description);
    }
}

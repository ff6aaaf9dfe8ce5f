use proptest::prelude::*;

use super::*;
use crate::{cache::ForwardReason, proptest_support::any_header_value};

const OURS: &str = "\"5d41402abc4b2a76\"";

/// An entity tag of somebody's, ours among them; it may hold anything but a quote.
fn tag() -> impl Strategy<Value = String> {
    let content = prop_oneof![
        2 => Just(OURS.trim_matches('"').to_owned()),
        1 => "[!#-~]{0,12}",
        1 => prop::sample::select(vec![",", "W/", "*", ", ", "5d41402abc4b2a76,", ",5d41402abc4b2a76"])
            .prop_map(str::to_owned),
    ];
    (content, any::<bool>())
        .prop_map(|(content, weak)| format!("{}\"{content}\"", if weak { "W/" } else { "" }))
}

fn status() -> impl Strategy<Value = CacheStatus> {
    let forward = prop::sample::select(vec![
        ForwardReason::UriMiss,
        ForwardReason::Stale,
        ForwardReason::Request,
    ]);
    let details = vec![
        "stale-while-revalidate",
        "stale-if-error",
        "only-if-cached",
        "credentials-refused",
    ];
    (
        any::<(bool, bool, bool)>(),
        prop::option::of(forward),
        prop::option::of(100..1_000_u16),
        prop::option::of(-10_000_000_000..10_000_000_000_i64),
        prop::option::of(prop::sample::select(details)),
    )
        .prop_map(
            |((hit, stored, collapsed), forward, forward_status, ttl, detail)| CacheStatus {
                hit,
                forward,
                forward_status,
                stored,
                collapsed,
                ttl,
                detail,
            },
        )
}

/// The parameters of a list's one member (RFC 8941 §3.1.2), read without a word of ours.
fn parameters(value: &HeaderValue) -> Vec<(String, Option<String>)> {
    let mut parts = value.to_str().unwrap().split("; ");
    assert_eq!(parts.next(), Some("usage-proxy"));
    let parameters = parts.map(|part| match part.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (part.to_owned(), None),
    });
    parameters.collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn a_tag_matches_if_it_is_ours(
        lists in prop::collection::vec(prop::collection::vec(tag(), 1..4), 1..3),
        separator in prop::sample::select(vec![",", ", ", " ,\t"]),
    ) {
        let request = lists
            .iter()
            .map(|list| (header::IF_NONE_MATCH, list.join(separator).parse().unwrap()))
            .collect();
        let expected = lists.iter().flatten().any(|tag| tag.trim_start_matches("W/") == OURS);

        prop_assert_eq!(is_not_modified(&request, OURS.as_bytes(), Some(at(0))), expected);
    }

    #[test]
    fn a_date_matches_if_it_is_not_before_the_content(
        since in 0..4_000_000_000_i64, modified in 0..4_000_000_000_i64, near in -2..=2_i64,
    ) {
        for modified in [modified, since + near] {
            let date = httpdate::fmt_http_date(at(since).into());
            let request = [(header::IF_MODIFIED_SINCE, date.parse().unwrap())].into_iter().collect();

            let not_modified = is_not_modified(&request, OURS.as_bytes(), Some(at(modified)));

            prop_assert_eq!(not_modified, modified <= since);
        }
    }

    #[test]
    fn any_condition_is_evaluated(value in any_header_value()) {
        for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
            let request = [(name, value.clone())].into_iter().collect();
            // Only what names the content or every content spares its sending.
            if is_not_modified(&request, OURS.as_bytes(), Some(at(0))) {
                prop_assert!(
                    value.as_bytes().trim_ascii() == b"*" || httpdate::parse_http_date(value.to_str().unwrap()).is_ok()
                );
            }
        }
    }

    #[test]
    fn a_cache_status_contains_every_parameter(status in status()) {
        let said = parameters(&cache_status(&status));

        let says = |name: &str| said.iter().any(|(said, value)| said == name && value.is_none());
        let value = |name: &str| {
            let said = said.iter().find(|(said, _)| said == name);
            said.and_then(|(_, value)| value.clone())
        };
        prop_assert_eq!(says("hit"), status.hit);
        prop_assert_eq!(says("stored"), status.stored);
        prop_assert_eq!(says("collapsed"), status.collapsed);
        prop_assert_eq!(value("fwd"), status.forward.map(|why| why.as_str().to_owned()));
        prop_assert_eq!(value("fwd-status"), status.forward_status.map(|code| code.to_string()));
        prop_assert_eq!(value("ttl"), status.ttl.map(|left| left.to_string()));
        prop_assert_eq!(value("detail"), status.detail.map(str::to_owned));
    }
}

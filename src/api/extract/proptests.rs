use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::proptest_support::any_header_value;

/// A directive of `Cache-Control`, ours among others.
fn directive_text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "no-cache",
        "No-Cache",
        "only-if-cached",
        "ONLY-IF-CACHED",
        "max-age=0",
        "no-store",
        "max-stale",
        "no-cache=\"x\"",
        "no-cached",
        "x-no-cache",
        "",
    ])
}

fn today() -> ProcessedDate {
    ProcessedDate::parse("2026-11-22").unwrap()
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn the_stricter_directive_wins(
        lines in prop::collection::vec(prop::collection::vec(directive_text(), 1..4), 0..3),
        separator in prop::sample::select(vec![",", ", ", "\t,  "]),
    ) {
        let headers = lines
            .iter()
            .map(|line| (header::CACHE_CONTROL, line.join(separator).parse().unwrap()))
            .collect();
        let said = |name: &str| lines.iter().flatten().any(|said| said.eq_ignore_ascii_case(name));

        let expected = match (said("only-if-cached"), said("no-cache")) {
            (true, _) => CacheDirective::OnlyIfCached,
            (false, true) => CacheDirective::NoCache,
            (false, false) => CacheDirective::Any,
        };
        prop_assert_eq!(cache_directive(&headers), expected);
    }

    #[test]
    fn any_path_segment_is_a_customer_or_rejected(segment in "(%[0-9a-fA-F]{2}|[0-9a-fA-F{}-]|.){0,48}") {
        match customer_id(&segment) {
            Ok(customer) => {
                let plain = percent_decoded(&segment).unwrap();
                prop_assert_eq!(CustomerId::parse(&plain), Ok(customer));
            }
            Err(problem) => prop_assert_eq!(problem.status(), StatusCode::BAD_REQUEST),
        }
    }

    #[test]
    fn any_query_is_a_date_up_to_today_or_rejected(
        query in "(processedDate=)?([0-9]{4}-[01][0-9]-[0-3][0-9]|.{0,12})(&.{0,20})?",
    ) {
        match processed_date(Some(&query), today) {
            Ok(Some(date)) => {
                prop_assert!(date <= today());
                prop_assert!(query.starts_with("processedDate=") || query.contains('&'));
            }
            Ok(None) => prop_assert!(query.chars().all(|character| character == '&'), "{:?}", query),
            Err(problem) => prop_assert_eq!(problem.status(), StatusCode::BAD_REQUEST),
        }
    }

    #[test]
    fn forwarded_trace_headers_are_well_formed(value in any_header_value()) {
        let headers = [(TRACEPARENT, value.clone()), (X_CORRELATION_ID, value.clone())].into_iter().collect();

        let trace = call_trace(&headers);

        if let Some(id) = trace.correlation_id {
            prop_assert_eq!(Uuid::try_parse_ascii(value.as_bytes()), Ok(id));
        }
        prop_assert!(trace.traceparent.is_none(), "{:?}", value);
    }

    #[test]
    fn a_valid_traceparent_is_forwarded(parts in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}") {
        let headers = [(TRACEPARENT, parts.parse().unwrap())].into_iter().collect();

        let passed_on = call_trace(&headers).traceparent.unwrap();

        prop_assert_eq!(passed_on.to_str().unwrap(), parts);
    }
}

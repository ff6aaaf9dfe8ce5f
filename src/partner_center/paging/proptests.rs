use proptest::prelude::*;

use super::*;

const ENDPOINTS: [&str; 3] = [
    "https://api.example/v1/analytics/commercial/usage/license/",
    "https://api.example/partner/v1/analytics/commercial/usage/license",
    "http://127.0.0.1:8080/v1/customers",
];

/// Pieces that links are made of, and attacks on them.
fn link() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "https:", "http:", "HTTPS://", "javascript:", "//", "/", "\\", "\\\\", "..", ".", "%2e", "%2E%2E",
            "%2f", "%5C", "%00", "@", "user:pw@", ":", ":443", ":80", "?", "?skip=1", "&", "#", "#x", "api.example",
            "API.EXAMPLE", "api.example.", "evil.example", "127.0.0.1:8080", "2130706433", "[::1]", "partner", "v1",
            "/v1", "/analytics/commercial/usage/license", "/license", "/customers", "\t", "\n", " ", ";", "ａ",
        ]).prop_map(str::to_owned),
        1 => ".{0,3}",
        1 => prop::sample::select(ENDPOINTS.to_vec()).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// The segments of a path as a lenient server may read it: decoded, and split at either slash.
fn segments(path: &str) -> Vec<String> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    decoded
        .split(['/', '\\'])
        .filter(|segment| !segment.is_empty())
        .map(str::to_owned)
        .collect()
}

proptest! {
    #![proptest_config(crate::proptest_support::proptest_config())]

    #[test]
    fn a_link_is_followed_to_the_same_call_or_not_at_all(
        endpoint in prop::sample::select(ENDPOINTS.to_vec()), uri in link(),
    ) {
        let endpoint: Url = endpoint.parse().unwrap();
        let mut pages = PageCursor::new(endpoint.clone());
        let link = NextLink { uri, continuation_token: None };

        if pages.follow(&link).is_ok() {
            let url = &pages.request().url;
            prop_assert_eq!(url.origin(), endpoint.origin());
            prop_assert_eq!((url.username(), url.password()), ("", None));
            let (from, to) = (segments(endpoint.path()), segments(url.path()));
            prop_assert!(to.starts_with(&from), "{}", url);
            prop_assert!(!to.iter().any(|segment| segment == ".." || segment == "."), "{}", url);
            prop_assert!(*url != endpoint, "a page is not its own next");
        }
    }

    #[test]
    fn a_query_of_the_same_call_is_followed(
        endpoint in prop::sample::select(ENDPOINTS.to_vec()), query in "[a-zA-Z0-9=&_-]{1,20}",
    ) {
        let endpoint: Url = endpoint.parse().unwrap();
        for uri in [format!("?{query}"), format!("{endpoint}?{query}")] {
            let link = NextLink { uri, continuation_token: None };

            let mut pages = PageCursor::new(endpoint.clone());
            pages.follow(&link).unwrap();

            let url = &pages.request().url;
            prop_assert_eq!(url.query(), Some(query.as_str()));
            prop_assert_eq!(url.path(), endpoint.path());
        }
    }
}

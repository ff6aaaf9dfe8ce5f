//! Which next links may be followed, since the bearer token goes nowhere that it was not meant for, and
//! whether the pages that come are pages of one answer.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, Hash, RandomState},
};

use url::Url;

use super::wire::{MalformedResponse, NextLink};

/// Pages of one answer; at 10,000 rows each, far beyond any customer.
const MOST_PAGES: usize = 200;

/// The pages of one logical call, as they are asked for.
#[derive(Debug)]
pub(super) struct PageCursor {
    endpoint: Url,
    seen: HashSet<PageRequest>,
}

/// What to ask for one page with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PageRequest {
    /// At or below the endpoint.
    pub(super) url: Url,
    /// Sent as `MS-ContinuationToken`.
    pub(super) continuation_token: Option<String>,
}

/// The rows of the pages of one answer, as they come.
///
/// Where rows are added, removed or put in another order while they are read page by page, the pages
/// shift: one row comes twice, and another not at all.
#[derive(Debug, Default)]
pub(super) struct PageRows {
    hasher: RandomState,
    /// Hashes of the rows of earlier pages.
    earlier: HashSet<u64>,
}

// === impl PageRows ===

impl PageRows {
    /// Takes note of the rows of the next page, each by what tells it from others. Equal rows of one
    /// page are no shift.
    ///
    /// # Errors
    ///
    /// [`MalformedResponse`] where an earlier page had one of them.
    pub(super) fn add<T: Hash>(
        &mut self,
        rows: impl Iterator<Item = T>,
    ) -> Result<(), MalformedResponse> {
        let rows: Vec<u64> = rows.map(|row| self.hasher.hash_one(row)).collect();
        if rows.iter().any(|row| self.earlier.contains(row)) {
            return Err(MalformedResponse(
                "a page repeats a row of an earlier one, so another row may be missing: expected \
                 pages that do not shift while they are read"
                    .to_owned(),
            ));
        }
        self.earlier.extend(rows);
        Ok(())
    }
}

// === impl Pages ===

impl PageCursor {
    /// The pages from `first` on, which all lie at or below its path.
    pub(super) fn from(first: &PageRequest) -> Self {
        Self {
            endpoint: first.url.clone(),
            seen: HashSet::from([first.clone()]),
        }
    }

    /// The request for the page that `link`, found in the answer from `current`, leads to.
    ///
    /// # Errors
    ///
    /// [`MalformedResponse`] for a link to another place, one that was followed before, or one too many.
    pub(super) fn next(
        &mut self,
        current: &PageRequest,
        link: &NextLink,
    ) -> Result<PageRequest, MalformedResponse> {
        let url = resolve(&self.endpoint, &current.url, &link.uri).ok_or_else(|| {
            MalformedResponse("next link: leads elsewhere, expected the same call".to_owned())
        })?;
        let next = PageRequest {
            url,
            continuation_token: link.continuation_token.clone(),
        };
        if self.seen.len() >= MOST_PAGES {
            return Err(MalformedResponse(format!(
                "next link: expected at most {MOST_PAGES} pages"
            )));
        }
        if !self.seen.insert(next.clone()) {
            return Err(MalformedResponse(
                "next link: leads back to a page that was read".to_owned(),
            ));
        }
        Ok(next)
    }
}

/// Where a link leads; `None` when that is not at or below `endpoint`.
fn resolve(endpoint: &Url, current: &Url, uri: &str) -> Option<Url> {
    let mut url = current.join(uri).ok()?;
    url.set_fragment(None);
    if is_below(endpoint, &url) {
        return Some(url);
    }
    // Partner Center writes relative links from below its version prefix: `/customers?…` stands
    // for `/v1/customers?…`.
    let path = url.path().trim_end_matches('/');
    let relative = uri.starts_with('/') && !uri.starts_with("//");
    if relative && !path.is_empty() && endpoint.path().trim_end_matches('/').ends_with(path) {
        let mut same = endpoint.clone();
        same.set_query(url.query());
        return Some(same);
    }
    None
}

fn is_below(endpoint: &Url, url: &Url) -> bool {
    let same_origin = (url.scheme(), url.host(), url.port_or_known_default())
        == (
            endpoint.scheme(),
            endpoint.host(),
            endpoint.port_or_known_default(),
        );
    let anonymous = url.username().is_empty() && url.password().is_none();
    let below = url
        .path()
        .strip_prefix(endpoint.path().trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    same_origin && anonymous && below && !hides_separators(url.path())
}

/// Some servers decode a path before they split it, and would climb out of the prefix by it.
fn hides_separators(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["%2f", "%5c", "%2e"]
        .into_iter()
        .any(|hidden| path.contains(hidden))
}

#[cfg(test)]
mod proptests;

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "https://api.example/partner/v1/analytics/commercial/usage/license/";

    fn first() -> PageRequest {
        PageRequest {
            url: format!("{ENDPOINT}?top=10000").parse().unwrap(),
            continuation_token: None,
        }
    }

    fn follow(uri: &str) -> Result<PageRequest, MalformedResponse> {
        let link = NextLink {
            uri: uri.to_owned(),
            continuation_token: None,
        };
        PageCursor::from(&first()).next(&first(), &link)
    }

    #[test]
    fn links_to_the_same_call_are_followed() {
        for uri in [
            "https://api.example/partner/v1/analytics/commercial/usage/license/?skip=1",
            "https://API.example:443/partner/v1/analytics/commercial/usage/license?skip=1",
            "/partner/v1/analytics/commercial/usage/license/?skip=1",
            "/v1/analytics/commercial/usage/license/?skip=1",
            "/analytics/commercial/usage/license?skip=1",
            "?skip=1",
            "./?skip=1#end",
        ] {
            let url = follow(uri).map(|page| page.url);
            assert!(
                url.as_ref().is_ok_and(|url| url.query() == Some("skip=1")
                    && url.as_str().starts_with(ENDPOINT.trim_end_matches('/'))),
                "{uri}: {url:?}"
            );
        }
    }

    #[test]
    fn links_to_anywhere_else_are_not() {
        for uri in [
            "https://evil.example/partner/v1/analytics/commercial/usage/license/?skip=1",
            "http://api.example/partner/v1/analytics/commercial/usage/license/?skip=1",
            "https://api.example:8443/partner/v1/analytics/commercial/usage/license/?skip=1",
            "https://api.example@evil.example/partner/v1/analytics/commercial/usage/license/",
            "https://user:pw@api.example/partner/v1/analytics/commercial/usage/license/",
            "https://api.example/partner/v1/analytics/commercial/usage/licenses?skip=1",
            "//evil.example/partner/v1/analytics/commercial/usage/license/",
            "//evil.example/license",
            "../../../../customers",
            "/partner/v1/analytics/commercial/usage/license/%2e%2e/%2e%2e/customers",
            "/partner/v1/analytics/commercial/usage/license/..%2f..%2fcustomers",
            "\\\\evil.example\\license",
            "/",
            "javascript:alert(1)",
            "https://",
        ] {
            assert!(follow(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_link_back_is_a_loop() {
        let mut pages = PageCursor::from(&first());
        let link = |skip: &str| NextLink {
            uri: format!("?skip={skip}"),
            continuation_token: None,
        };
        let second = pages.next(&first(), &link("1")).unwrap();

        let third = pages.next(&second, &link("2")).unwrap();

        assert!(pages.next(&third, &link("1")).is_err());
    }

    #[test]
    fn the_same_address_with_another_continuation_is_another_page() {
        let link = NextLink {
            uri: first().url.to_string(),
            continuation_token: Some("abc".to_owned()),
        };

        let next = PageCursor::from(&first()).next(&first(), &link).unwrap();

        assert_eq!(next.continuation_token.as_deref(), Some("abc"));
    }

    #[test]
    fn there_is_an_end_to_pages() {
        let mut pages = PageCursor::from(&first());
        let mut current = first();
        let mut read = 1;

        let fault = loop {
            let link = NextLink {
                uri: format!("?skip={read}"),
                continuation_token: None,
            };
            match pages.next(&current, &link) {
                Ok(next) => current = next,
                Err(fault) => break fault,
            }
            read += 1;
        };

        assert_eq!(read, MOST_PAGES);
        assert!(fault.0.contains("200"));
    }
}
